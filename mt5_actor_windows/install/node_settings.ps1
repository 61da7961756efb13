# What the scripts here share: where things lie, and to which head this node belongs. Dot-source it.
# Plain Windows PowerShell 5.1; nothing is read from a program's printed text, since Windows prints in the user's language.

$Root = (Resolve-Path (Join-Path $PSScriptRoot "..\..")).Path
$Venv = Join-Path $Root ".venv-windows"
$Exe = Join-Path $Venv "Scripts\python.exe"
$TaskName = "LSTMC node"
$RuleName = "LSTMC-node"
$TunnelName = "lstmc"
# As mt5_actor_windows/node_ports.py has them.
$DataApiPort = "8001"
$Ports = @("10010-10014", "10100-10199", $DataApiPort)

function Get-NodeHome([string] $Given) {
    if ($Given) { $folder = $Given }
    elseif ($env:LSTMC_HOME) { $folder = $env:LSTMC_HOME }
    else { $folder = Join-Path $Root ".lstmc" }
    return $ExecutionContext.SessionState.Path.GetUnresolvedProviderPathFromPSPath($folder)
}

# What install.ps1 wrote down; $null before the first installation.
function Read-NodeSettings([string] $NodeHome) {
    $file = Join-Path $NodeHome "node.json"
    if (-not (Test-Path $file)) { return $null }
    return Get-Content $file -Raw -Encoding UTF8 | ConvertFrom-Json
}

function Assert-Installed {
    if (-not (Test-Path $Exe)) {
        throw "The node is not installed: $Exe is missing. Run install.ps1 once, as administrator."
    }
}

function Set-NodeEnvironment([string] $NodeHome, $Settings) {
    $env:LSTMC_HOME = $NodeHome
    $env:PYTHONPATH = $Root
    $env:PYTHONUTF8 = "1"
    $env:PYTHONUNBUFFERED = "1"
    # Python writes UTF-8; without a console there is nothing to set.
    try { [Console]::OutputEncoding = New-Object Text.UTF8Encoding $false } catch { Write-Verbose "no console" }
    if ($Settings -and $Settings.metatrader_path -and -not $env:MT5_PATH) { $env:MT5_PATH = $Settings.metatrader_path }
}

function Assert-Elevated {
    $me = New-Object Security.Principal.WindowsPrincipal ([Security.Principal.WindowsIdentity]::GetCurrent())
    if (-not $me.IsInRole([Security.Principal.WindowsBuiltInRole]::Administrator)) {
        throw "This needs administrator rights. Open PowerShell with 'Run as administrator' and run it again."
    }
}

# Ends the log-on task and every process of our environment: open files cannot be replaced on Windows.
function Stop-Node {
    $task = Get-ScheduledTask -TaskName $TaskName -ErrorAction SilentlyContinue
    if ($task) {
        Disable-ScheduledTask -TaskName $TaskName | Out-Null # it looks every minute whether it should start
        Stop-ScheduledTask -TaskName $TaskName
    }
    $ours = Get-CimInstance Win32_Process | Where-Object {
        ($_.ExecutablePath -and $_.ExecutablePath.StartsWith($Venv, [StringComparison]::OrdinalIgnoreCase)) -or
        ($_.Name -eq "python.exe" -and $_.CommandLine -and $_.CommandLine.Contains($Venv))
    }
    foreach ($process in $ours) { Stop-Process -Id $process.ProcessId -Force -ErrorAction SilentlyContinue }
}

function Remove-Tunnel {
    $service = Get-Service -Name "WireGuardTunnel`$$TunnelName" -ErrorAction SilentlyContinue
    if (-not $service) { return }
    Start-Process (Find-WireGuard "wireguard.exe") -ArgumentList "/uninstalltunnelservice", $TunnelName -Wait # a program with windows: & would not wait
    for ($i = 0; $i -lt 40; $i++) {
        if (-not (Get-Service -Name $service.Name -ErrorAction SilentlyContinue)) { return }
        Start-Sleep -Milliseconds 500
    }
    throw "The WireGuard tunnel $TunnelName could not be removed. Remove it in the WireGuard window, then run this again."
}

function Find-WireGuard([string] $Program) {
    $found = Get-Command $Program -ErrorAction SilentlyContinue
    if ($found) { return $found.Source }
    $usual = Join-Path $env:ProgramFiles "WireGuard\$Program"
    if (Test-Path $usual) { return $usual }
    throw "WireGuard is not installed: no $Program. Install WireGuard for Windows, then run this again."
}

# Only this user, and nobody inherits; by SID, since the names of accounts are translated.
function Protect-Folder([string] $Folder, [string[]] $AlsoRead = @()) {
    New-Item -ItemType Directory -Force $Folder | Out-Null
    $me = [Security.Principal.WindowsIdentity]::GetCurrent().User.Value
    $grants = @("*${me}:(OI)(CI)F") + @($AlsoRead | ForEach-Object { "*${_}:(OI)(CI)R" })
    & icacls.exe $Folder /inheritance:r /grant:r @grants /T /Q | Out-Null
    if ($LASTEXITCODE) {
        throw "The rights of $Folder could not be set (icacls code $LASTEXITCODE). Choose a folder on an NTFS disk with -NodeHome."
    }
}

# Rules that block our programs, left by a prompt that somebody once answered with Cancel; they win over a rule that allows.
# One by one: with nothing to look up these cmdlets would take all rules there are.
function Get-BlockingRules {
    $base = & $Exe -c "import sys; print(sys._base_executable)"
    $filters = @(Get-NetFirewallApplicationFilter -All | Where-Object { $_.Program -eq $base -or $_.Program -like "$Venv\*" })
    foreach ($filter in $filters) {
        $rule = Get-NetFirewallRule -AssociatedNetFirewallApplicationFilter $filter
        if ("$($rule.Enabled)" -eq "True" -and "$($rule.Direction)" -eq "Inbound" -and "$($rule.Action)" -eq "Block") { $rule }
    }
}

function Remove-OurRule {
    if (Get-NetFirewallRule -Name $RuleName -ErrorAction SilentlyContinue) { Remove-NetFirewallRule -Name $RuleName }
}

# Windows PowerShell's own writers put a byte order mark before UTF-8, which would become part of a secret.
function Write-Text([string] $File, [string] $Text) {
    [IO.File]::WriteAllText($File, $Text, (New-Object Text.UTF8Encoding $false))
}
