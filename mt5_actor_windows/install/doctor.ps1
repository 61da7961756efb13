<#
.SYNOPSIS
  Checks this node from Python to the terminal, and names the cure of whatever is bad. Ends with 0 when all is well, else 1.

.EXAMPLE
  .\mt5_actor_windows\install\doctor.ps1
  .\mt5_actor_windows\install\doctor.ps1 -Json
#>
[CmdletBinding()]
param(
    [string] $Head,
    [string] $Address,
    [string] $Symbols, # EURUSD,GBPUSD; default: what the repository's configuration has
    [string] $NodeHome,
    [switch] $Json
)
$ErrorActionPreference = "Stop"
. (Join-Path $PSScriptRoot "node_settings.ps1")

Assert-Installed
$NodeHome = Get-NodeHome $NodeHome
$settings = Read-NodeSettings $NodeHome
if (-not $Head -and $settings) { $Head = $settings.head }
if (-not $Address -and $settings) { $Address = $settings.address }

Set-Location $Root
Set-NodeEnvironment $NodeHome $settings
$arguments = @("-m", "mt5_actor_windows.doctor", "--home", $NodeHome)
if ($Head) { $arguments += @("--head", $Head) }
if ($Address) { $arguments += @("--address", $Address) }
if ($Symbols) { $arguments += @("--symbols", $Symbols) }
if ($settings -and $settings.no_ray) { $arguments += "--no-ray" }
if ($Json) { $arguments += "--json" }
& $Exe @arguments
exit $LASTEXITCODE
