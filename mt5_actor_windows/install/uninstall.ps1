<#
.SYNOPSIS
  Takes this host out of the cluster: ends the node, removes its task, firewall rule and tunnel. Data and secrets stay.

.DESCRIPTION
  Power and update settings stay as they are. With -RemoveData the Python environment and the node's home, with secrets
  and logs, go too.

.EXAMPLE
  .\mt5_actor_windows\install\uninstall.ps1 -RemoveData
#>
[CmdletBinding()]
param(
    [string] $NodeHome,
    [switch] $RemoveData
)
$ErrorActionPreference = "Stop"
. (Join-Path $PSScriptRoot "node_settings.ps1")

Assert-Elevated
$NodeHome = Get-NodeHome $NodeHome
Stop-Node
if (Get-ScheduledTask -TaskName $TaskName -ErrorAction SilentlyContinue) {
    Unregister-ScheduledTask -TaskName $TaskName -Confirm:$false
}
Remove-OurRule
Remove-Tunnel
if ($RemoveData) {
    foreach ($folder in $NodeHome, $Venv) {
        if (Test-Path $folder) { Remove-Item $folder -Recurse -Force }
    }
}
Write-Host "Uninstalled. $(if ($RemoveData) { 'Data and secrets are gone.' } else { "Data and secrets are still in $NodeHome." })"
