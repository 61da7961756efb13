<#
.SYNOPSIS
  Makes this Windows host, on which a MetaTrader 5 terminal runs, the `mt5` node of a cluster. Run again, it repairs.

.DESCRIPTION
  Run it as administrator, in an account that also runs the terminal. It checks the host, makes the Python environment,
  stores the secrets, opens the firewall for the head alone, joins the WireGuard network, keeps the host awake and
  registers a task that starts the node whenever this user logs on. The steps and all error texts: docs/windows-node.md.
  What is not given stays as the last run had it: without any parameter it only repairs.

.EXAMPLE
  On the head, `lstmc node windows --print --host 10.8.0.1` prints the exact lines, such as:
  .\mt5_actor_windows\install\install.ps1 -Head 10.8.0.1:6379 -Address 10.8.0.2 -RayToken TOKEN -DataApiKeyDigest DIGEST
#>
[CmdletBinding()]
param(
    [string] $Head,             # host:port of the cluster's head, as this host sees it
    [string] $Address,          # this host's own address as the head sees it; default: by the route to the head
    [string] $RayToken,         # the head's secrets/ray_token
    [string] $DataApiKeyDigest, # SHA-256 of the head's secrets/data_api_key, 64 hex digits
    [string[]] $OtherNodes,     # addresses of the cluster's further Linux nodes
    [string] $MetaTraderPath,   # terminal64.exe; default: what the MetaTrader5 package finds by itself
    [string] $WireGuardConfig,  # a tunnel's .conf file
    [string] $Python,           # python.exe of a 64-bit Python 3.11; default: what `py -3.11` starts
    [switch] $NoRay,            # a host that cannot join the cluster: the data API only
    [string] $NodeHome          # secrets and logs; default: LSTMC_HOME, else .lstmc in the repository
)
$ErrorActionPreference = "Stop"
. (Join-Path $PSScriptRoot "node_settings.ps1")

function Step([string] $Text) { Write-Host "-- $Text" }

function Assert-Host {
    if (-not [Environment]::Is64BitOperatingSystem -or -not [Environment]::Is64BitProcess) {
        throw "64-bit Windows and a 64-bit PowerShell are needed. Do not use 'Windows PowerShell (x86)'."
    }
    if ([Environment]::OSVersion.Version.Build -lt 17763) {
        throw "Windows 10 1809 or Windows Server 2019 is needed, or newer. Use another host."
    }
    # The terminal answers only programs of its own user and desktop. Elevation with another account's password
    # would store the secrets and register the task for that other account.
    $session = [Diagnostics.Process]::GetCurrentProcess().SessionId
    $desktop = Get-Process explorer -IncludeUserName -ErrorAction SilentlyContinue |
        Where-Object { $_.SessionId -eq $session } | Select-Object -First 1
    $me = [Security.Principal.WindowsIdentity]::GetCurrent().Name
    if ($desktop -and $desktop.UserName -ne $me) {
        throw "This runs as $me, but the desktop belongs to $($desktop.UserName). Make that account an administrator, or log on as $me and run the terminal there."
    }
}

function Get-Python {
    $command = "py"
    $first = @("-3.11")
    if ($Python) {
        $command = $Python
        $first = @()
    }
    $cure = "Install the 64-bit Python 3.11 from python.org (with its py launcher), or give -Python PATH."
    if (-not (Get-Command $command -ErrorAction SilentlyContinue)) { throw "No 64-bit Python 3.11 found. $cure" }
    $found = & $command @first -c "import struct, sys; print(sys.version_info[0], sys.version_info[1], struct.calcsize('P') * 8, sep='.')"
    if ($LASTEXITCODE -or "$found" -ne "3.11.64") { throw "No 64-bit Python 3.11 found. $cure" }
    return , (@($command) + $first)
}

function Install-Environment([string[]] $Command) {
    Step "Python environment in $Venv"
    if (-not (Test-Path $Exe)) {
        $first = @($Command | Select-Object -Skip 1)
        & $Command[0] @first -m venv $Venv
        if ($LASTEXITCODE) { throw "The Python environment could not be made in $Venv. Remove that folder and run this again." }
    }
    & $Exe -m pip --disable-pip-version-check install --quiet "--only-binary=:all:" -r (Join-Path $PSScriptRoot "requirements-windows.lock")
    if ($LASTEXITCODE) { throw "pip could not install the packages; its reason is above. Check the internet connection and run this again." }
}

function Install-Secrets([string] $Folder) {
    Step "secrets in $Folder, for this user only"
    $file = Join-Path $Folder "ray_token"
    Protect-Folder $Folder
    if ($RayToken) { Write-Text $file $RayToken.Trim() }
    if (-not $NoRay -and -not (Test-Path $file)) { throw "There is no Ray token yet. Give -RayToken; the head prints it: lstmc node windows --print." }
    if ($DataApiKeyDigest) {
        if ($DataApiKeyDigest -notmatch "^[0-9a-fA-F]{64}$") {
            throw "-DataApiKeyDigest is not a SHA-256 digest of 64 hex digits. Take it from the head: lstmc node windows --print."
        }
        & $Exe -m mt5_actor_windows.api_keys accept $DataApiKeyDigest.ToLower() --name head --home $NodeHome
        if ($LASTEXITCODE) { throw "The data API's key could not be stored; the reason is above. Run this again." }
    }
    if (-not (Test-Path (Join-Path $Folder "data_api_keys.json"))) {
        throw "There is no data API key yet. Give -DataApiKeyDigest; the head prints it: lstmc node windows --print."
    }
    Protect-Folder $Folder # also what was just written
}

function Install-Tunnel {
    if (-not $WireGuardConfig) {
        if (-not (Get-Service -Name "WireGuardTunnel`$$TunnelName" -ErrorAction SilentlyContinue)) {
            Write-Host "   No WireGuard tunnel. Ray encrypts nothing: over the internet make one with wireguard.ps1, then run this again with -WireGuardConfig."
        }
        return
    }
    if (-not (Test-Path $WireGuardConfig)) { throw "There is no file $WireGuardConfig. Make it with wireguard.ps1, or give the right path." }
    Step "WireGuard tunnel $TunnelName"
    $program = Find-WireGuard "wireguard.exe"
    $folder = Join-Path $NodeHome "wireguard"
    Protect-Folder $folder @("S-1-5-18") # the tunnel runs as LocalSystem and reads the file at every start
    $kept = Join-Path $folder "$TunnelName.conf"
    if ((Resolve-Path $WireGuardConfig).Path -ne $kept) { Copy-Item $WireGuardConfig $kept -Force }
    Remove-Tunnel
    # A program with windows: & would not wait. The quotes are ours to give, since Start-Process gives none.
    $done = Start-Process $program -ArgumentList "/installtunnelservice", "`"$kept`"" -Wait -PassThru
    if ($done.ExitCode) { throw "WireGuard refused the tunnel. Import $kept in the WireGuard window; it names the wrong line." }
}

function Get-HeadAddress {
    $name, $port = $Head -split ":"
    if (-not $name -or "$port" -notmatch "^\d+$") { throw "-Head $Head is not HOST:PORT. For example 10.8.0.1:6379." }
    try {
        $found = [Net.Dns]::GetHostAddresses($name) | Where-Object { $_.AddressFamily -eq "InterNetwork" } | Select-Object -First 1
    } catch { $found = $null }
    if (-not $found) { throw "The head's name $name has no IPv4 address. Give its address in the WireGuard network." }
    return $found.IPAddressToString
}

function Get-OwnAddress([string] $HeadAddress) {
    for ($i = 0; $i -lt 20; $i++) { # a tunnel just made needs a moment until its address is there
        if ($Address) { $found = @(Get-NetIPAddress -IPAddress $Address -ErrorAction SilentlyContinue) }
        else { $found = @(Find-NetRoute -RemoteIPAddress $HeadAddress -ErrorAction SilentlyContinue | Where-Object { $_.IPAddress }) }
        if ($found) { return $found[0].IPAddress }
        Start-Sleep -Seconds 1
    }
    $has = (Get-NetIPAddress -AddressFamily IPv4 | ForEach-Object { $_.IPAddress }) -join ", "
    throw "This host does not have the address $Address. It has $has. Give the one that the head can reach with -Address."
}

function Open-Firewall([string[]] $From) {
    $open = @($Ports)
    if ($NoRay) { $open = @($DataApiPort) }
    Step "firewall: $($open -join ', ') open for $($From -join ', ') only"
    Remove-OurRule
    New-NetFirewallRule -Name $RuleName -DisplayName $TaskName -Direction Inbound -Action Allow -Protocol TCP -LocalPort $open -RemoteAddress $From -Profile Any | Out-Null
    foreach ($rule in @(Get-BlockingRules)) { Remove-NetFirewallRule -Name $rule.Name }
}

function Stay-Awake {
    Step "no sleep, no hibernation, no forced restart while somebody is logged on"
    foreach ($setting in "standby-timeout-ac", "standby-timeout-dc", "hibernate-timeout-ac", "hibernate-timeout-dc") {
        & powercfg.exe /change $setting 0
        if ($LASTEXITCODE) { throw "powercfg could not set $setting. Turn sleep off in the power settings by hand." }
    }
    $updates = "HKLM:\SOFTWARE\Policies\Microsoft\Windows\WindowsUpdate\AU"
    if (-not (Test-Path $updates)) { New-Item $updates -Force | Out-Null }
    Set-ItemProperty $updates -Name NoAutoRebootWithLoggedOnUsers -Value 1 -Type DWord
}

function Register-Node {
    Step "task '$TaskName' at log-on"
    $user = [Security.Principal.WindowsIdentity]::GetCurrent().Name
    $runner = Join-Path $PSScriptRoot "run.ps1"
    $action = New-ScheduledTaskAction -Execute "powershell.exe" -WorkingDirectory $Root -Argument "-NoProfile -ExecutionPolicy Bypass -WindowStyle Hidden -File `"$runner`" -NodeHome `"$NodeHome`""
    # Restart on failure does not cover a run that was ended from outside; looking every minute does. A second copy is never started.
    $triggers = @((New-ScheduledTaskTrigger -AtLogOn -User $user), (New-ScheduledTaskTrigger -Once -At (Get-Date) -RepetitionInterval (New-TimeSpan -Minutes 1)))
    $principal = New-ScheduledTaskPrincipal -UserId $user -LogonType Interactive -RunLevel Limited # only while logged on: the terminal's desktop
    $rules = New-ScheduledTaskSettingsSet -RestartCount 999 -RestartInterval (New-TimeSpan -Minutes 1) -ExecutionTimeLimit ([TimeSpan]::Zero) `
        -MultipleInstances IgnoreNew -AllowStartIfOnBatteries -DontStopIfGoingOnBatteries -StartWhenAvailable
    Register-ScheduledTask -TaskName $TaskName -Action $action -Trigger $triggers -Principal $principal -Settings $rules -Force | Out-Null
    Start-ScheduledTask -TaskName $TaskName
}

Assert-Elevated
Assert-Host
$NodeHome = Get-NodeHome $NodeHome
$before = Read-NodeSettings $NodeHome
if ($before) {
    if (-not $Head) { $Head = $before.head }
    if (-not $Address) { $Address = $before.address }
    if (-not $OtherNodes) { $OtherNodes = $before.other_nodes }
    if (-not $MetaTraderPath) { $MetaTraderPath = $before.metatrader_path }
    if (-not $PSBoundParameters.ContainsKey("NoRay")) { $NoRay = [bool] $before.no_ray }
}
$command = Get-Python
$headAddress = Get-HeadAddress
if ($MetaTraderPath -and -not (Test-Path $MetaTraderPath -PathType Leaf)) {
    throw "There is no file $MetaTraderPath. Give the path of terminal64.exe with -MetaTraderPath."
}

Stop-Node
Set-Location $Root
Set-NodeEnvironment $NodeHome $null
New-Item -ItemType Directory -Force $NodeHome | Out-Null
Install-Environment $command
Install-Secrets (Join-Path $NodeHome "secrets")
Install-Tunnel
$own = Get-OwnAddress $headAddress
Write-Text (Join-Path $NodeHome "node.json") (ConvertTo-Json @{ head = $Head; address = $own; other_nodes = @($OtherNodes | Where-Object { $_ }); metatrader_path = "$MetaTraderPath"; no_ray = [bool] $NoRay })
Open-Firewall @(@($headAddress) + $OtherNodes | Where-Object { $_ })
Stay-Awake
Register-Node

Write-Host "Installed. The node starts now and at every log-on of this user; its log: $(Join-Path $NodeHome 'logs\node.log')"
Write-Host "Next: .\mt5_actor_windows\install\doctor.ps1"
Write-Host "After a restart of the host somebody must log on. To have Windows do it use Sysinternals Autologon, which keeps the"
Write-Host "password encrypted. Leave a remote desktop by closing its window, never by signing out: that ends the terminal."
