# Prints what only Windows knows, as JSON for mt5_actor_windows.doctor: objects, never text in Windows' own language.
# Each fact is looked up on its own; one that cannot be is {"error": why}.
[CmdletBinding()]
param([Parameter(Mandatory)] [string] $NodeHome)
$ErrorActionPreference = "Stop"
. (Join-Path $PSScriptRoot "node_settings.ps1")
Set-NodeEnvironment $NodeHome $null

function Read-Fact([scriptblock] $Look) {
    try { return & $Look } catch { return @{ error = "$($_.Exception.Message)" } }
}

function Get-Terminals {
    $found = Get-Process terminal64 -ErrorAction SilentlyContinue | ForEach-Object { @{ session = $_.SessionId; path = "$($_.Path)" } }
    return @{ running = @($found) }
}

function Get-Task {
    $task = Get-ScheduledTask -TaskName $TaskName -ErrorAction SilentlyContinue
    if (-not $task) { return @{ registered = $false } }
    $last = $task | Get-ScheduledTaskInfo
    return @{ registered = $true; state = "$($task.State)"; user = "$($task.Principal.UserId)"; last_result = $last.LastTaskResult }
}

function Get-Firewall {
    $rule = Get-NetFirewallRule -Name $RuleName -ErrorAction SilentlyContinue
    if (-not $rule) { return @{ present = $false } }
    return @{
        present  = $true
        enabled  = "$($rule.Enabled)" -eq "True"
        ports    = @(($rule | Get-NetFirewallPortFilter).LocalPort)
        from     = @(($rule | Get-NetFirewallAddressFilter).RemoteAddress)
        blocking = @(Get-BlockingRules | ForEach-Object { $_.DisplayName })
    }
}

# The active power scheme's seconds until sleep and hibernation on mains; powercfg would answer in the user's language.
function Get-Sleep {
    $schemes = "HKLM:\SYSTEM\CurrentControlSet\Control\Power\User\PowerSchemes"
    $active = (Get-ItemProperty $schemes).ActivePowerScheme
    $seconds = @{}
    foreach ($one in @{ sleep = "29f6c1db-86da-48c5-9fdb-f2b67b1f44da"; hibernate = "9d7815a6-7ee4-497e-8888-515a05f02364" }.GetEnumerator()) {
        $key = "$schemes\$active\238c9fa8-0aad-41ed-83f4-97be242c8f20\$($one.Value)"
        $seconds[$one.Key] = $null # never set: Windows' own default holds
        if (Test-Path $key) { $seconds[$one.Key] = (Get-ItemProperty $key).ACSettingIndex }
    }
    return $seconds
}

function Get-Commit {
    $system = Get-CimInstance Win32_OperatingSystem # in kilobytes
    return @{ free_mb = [math]::Floor($system.FreeVirtualMemory / 1024); total_mb = [math]::Floor($system.TotalVirtualMemorySize / 1024) }
}

# Who may read the secrets, by SID, beyond this user.
function Get-Readers {
    $me = [Security.Principal.WindowsIdentity]::GetCurrent().User.Value
    $rules = (Get-Acl (Join-Path $NodeHome "secrets")).GetAccessRules($true, $true, [Security.Principal.SecurityIdentifier])
    return @{ others = @($rules | ForEach-Object { $_.IdentityReference.Value } | Where-Object { $_ -ne $me } | Select-Object -Unique) }
}

ConvertTo-Json -Depth 5 @{
    session   = [Diagnostics.Process]::GetCurrentProcess().SessionId
    terminals = Read-Fact { Get-Terminals }
    task      = Read-Fact { Get-Task }
    firewall  = Read-Fact { Get-Firewall }
    sleep     = Read-Fact { Get-Sleep }
    commit    = Read-Fact { Get-Commit }
    readers   = Read-Fact { Get-Readers }
}
