<#
.SYNOPSIS
  Joins this Windows host, on which a MetaTrader 5 terminal runs, to the cluster's head as its `mt5` node.

.DESCRIPTION
  First version. It prepares an environment, starts one Ray node with zero CPUs and keeps it running while this window
  is open. It does NOT yet: run at log-on, open the firewall, set up a tunnel, or check the terminal. Tried so far only
  as the same commands under Wine, never on a real Windows host with a live account.

  Run it as the logged-in user who runs the terminal, not as a service: the terminal answers only its own session.
  Ports between this host and the head must be open both ways: the head's port, and here 10010-10030 and 10100-10199.

.EXAMPLE
  $env:RAY_AUTH_TOKEN = "<the head's secrets/ray_token>"; $env:LSTMC_SECRET_DATA_API_KEY = "<secrets/data_api_key>"
  .\mt5_actor_windows\install\start_node.ps1 -Head 10.8.0.1:6379 -Address 10.8.0.2
#>
[CmdletBinding()]
param(
    [Parameter(Mandatory)] [string] $Head,    # host:port of the cluster's head
    [Parameter(Mandatory)] [string] $Address, # this host's address as the head sees it
    [string] $Python = "py",
    [int] $StartSeconds = 75
)
$ErrorActionPreference = "Stop"
$root = Resolve-Path (Join-Path $PSScriptRoot "..\..")
Set-Location $root

foreach ($name in "RAY_AUTH_TOKEN", "LSTMC_SECRET_DATA_API_KEY") {
    if (-not [Environment]::GetEnvironmentVariable($name)) {
        throw "The environment variable $name is not set. Copy it from the head's <home>\secrets."
    }
}

# 1. Python 3.11 with what the market's side needs; neither torch nor the learners.
$venv = Join-Path $root ".venv-windows"
$exe = Join-Path $venv "Scripts\python.exe"
if (-not (Test-Path $exe)) {
    if ($Python -eq "py") { & py -3.11 -m venv $venv } else { & $Python -m venv $venv }
    if ($LASTEXITCODE) { throw "No Python 3.11 here. Install it from python.org, or give -Python PATH." }
    & $exe -m pip install --quiet "ray[default]==2.60.0" "MetaTrader5==5.0.6231" "numpy>=2.1,<3" "pyarrow>=26" `
        "pydantic-settings>=2.16" "PyYAML>=6" "fastapi>=0.165" "uvicorn>=0.51" "httpx>=0.28" "limits>=5.8" "structlog>=26" tzdata
    if ($LASTEXITCODE) { throw "pip could not install the packages; see above." }
}

# 2. Ray's own switches. Multi-node Ray on Windows is unofficial and must be asked for.
$env:RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER = "1"
$env:RAY_AUTH_MODE = "token"
$env:RAY_DEFAULT_PYTHON_VERSION_MATCH_LEVEL = "minor" # 3.11.x here and there need not be the same x
$env:RAY_USAGE_STATS_ENABLED = "0"
$env:PYTHONPATH = "$root"
$env:PYTHONUNBUFFERED = "1"

# A slow first import makes the raylet give up on its dashboard agent after 15 s: import once before.
& $exe -c "import ray, ray.dashboard.agent, fastapi, pyarrow, MetaTrader5"

$arguments = @(
    "-m", "ray.scripts.scripts", "start", "--address=$Head", "--node-ip-address=$Address",
    "--num-cpus=0", '--resources={\"mt5\":1}', "--labels=role=mt5,os=windows", "--temp-dir=C:\rt",
    "--object-store-memory=200000000", "--node-manager-port=10010", "--object-manager-port=10011",
    "--dashboard-agent-listen-port=10012", "--dashboard-agent-grpc-port=10013", "--metrics-export-port=10014",
    "--min-worker-port=10100", "--max-worker-port=10199", "--block", "--log-style=record", "--log-color=false"
)

# 3. Start; start again when it does not come up in time or ends later. Ctrl+C ends it.
while ($true) {
    $log = Join-Path $env:TEMP "lstmc-node.log"
    Remove-Item $log -ErrorAction SilentlyContinue
    $node = Start-Process $exe $arguments -PassThru -NoNewWindow -RedirectStandardOutput $log -RedirectStandardError "$log.err"
    try {
        $deadline = (Get-Date).AddSeconds($StartSeconds)
        $up = $false
        while (-not $up -and -not $node.HasExited -and (Get-Date) -lt $deadline) {
            Start-Sleep -Seconds 1
            $up = [bool](Select-String -Path $log -Pattern "Ray runtime started" -Quiet -ErrorAction SilentlyContinue)
        }
        if ($up) {
            Write-Host "$(Get-Date -Format s) the node is up; its log is $log"
            $node.WaitForExit()
            Write-Host "$(Get-Date -Format s) the node ended (code $($node.ExitCode)); starting it again"
        } else {
            Write-Host "$(Get-Date -Format s) not up in $StartSeconds s; trying again. The log's end:"
            Get-Content $log, "$log.err" -Tail 5 -ErrorAction SilentlyContinue
        }
    } finally {
        if (-not $node.HasExited) { & taskkill /PID $node.Id /T /F | Out-Null }
    }
    Start-Sleep -Seconds 3
}
