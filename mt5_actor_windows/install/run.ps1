<#
.SYNOPSIS
  Runs the node until it is ended: Ray and the data API, kept up by mt5_actor_windows.node. The log-on task calls it.

.DESCRIPTION
  What install.ps1 wrote down is used where nothing is given. Output goes to <home>\logs\node.log as well; a log of 10 MB
  is put aside as node.log.1 and so on, five are kept.

.EXAMPLE
  .\mt5_actor_windows\install\run.ps1
  .\mt5_actor_windows\install\run.ps1 -NoRay    # a host that cannot join the cluster: the data API only
#>
[CmdletBinding()]
param(
    [string] $Head,
    [string] $Address,
    [string] $NodeHome,
    [switch] $NoRay,
    [switch] $NoDataApi
)
$ErrorActionPreference = "Stop"
. (Join-Path $PSScriptRoot "node_settings.ps1")
$MaxBytes = 10 * 1024 * 1024
$KeptLogs = 5

Assert-Installed
$NodeHome = Get-NodeHome $NodeHome
$settings = Read-NodeSettings $NodeHome
if (-not $Head -and $settings) { $Head = $settings.head }
if (-not $Address -and $settings) { $Address = $settings.address }
if ($settings -and $settings.no_ray) { $NoRay = $true }
if (-not $Address -or (-not $Head -and -not $NoRay)) {
    throw "The head and this host's address are not known. Run install.ps1, or give -Head HOST:PORT and -Address ADDR."
}

Set-Location $Root
Set-NodeEnvironment $NodeHome $settings
$logs = Join-Path $NodeHome "logs"
New-Item -ItemType Directory -Force $logs | Out-Null
$log = Join-Path $logs "node.log"

function Move-FullLog {
    if (-not (Test-Path $log) -or (Get-Item $log).Length -lt $MaxBytes) { return }
    for ($n = $KeptLogs - 1; $n -ge 1; $n--) {
        if (Test-Path "$log.$n") { Move-Item "$log.$n" "$log.$($n + 1)" -Force }
    }
    Move-Item $log "$log.1" -Force
}

function Write-NodeLog([string] $Line) {
    Move-FullLog
    [IO.File]::AppendAllText($log, "$Line`r`n")
    Write-Host $Line
}

$arguments = @("-m", "mt5_actor_windows.node", "--address", $Address, "--home", $NodeHome)
if ($NoRay) { $arguments += "--no-ray" } else { $arguments += @("--head", $Head) }
if ($NoDataApi) { $arguments += "--no-data-api" }
$ErrorActionPreference = "Continue" # with Stop the node's first line on standard error would end this script
& $Exe @arguments 2>&1 | ForEach-Object { Write-NodeLog "$_" }
exit $LASTEXITCODE
