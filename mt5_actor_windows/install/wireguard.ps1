<#
.SYNOPSIS
  Makes this host's WireGuard key pair and, given the head's half, the tunnel's configuration for install.ps1.

.DESCRIPTION
  Run without parameters it prints the public key, which the head's WireGuard needs as a [Peer]. The private key stays
  in <home>\secrets and is never printed. Run again it keeps the pair.

.EXAMPLE
  .\mt5_actor_windows\install\wireguard.ps1
  .\mt5_actor_windows\install\wireguard.ps1 -HeadPublicKey KEY -Endpoint head.example.org:51820 -HeadAddress 10.8.0.1 -Address 10.8.0.2
#>
[CmdletBinding()]
param(
    [string] $HeadPublicKey,
    [string] $Endpoint,    # the head's public name or address and WireGuard's UDP port there
    [string] $HeadAddress, # inside the tunnel
    [string] $Address,     # this host's, inside the tunnel
    [string] $NodeHome
)
$ErrorActionPreference = "Stop"
. (Join-Path $PSScriptRoot "node_settings.ps1")

$NodeHome = Get-NodeHome $NodeHome
$wg = Find-WireGuard "wg.exe"
$secrets = Join-Path $NodeHome "secrets"
Protect-Folder $secrets
$file = Join-Path $secrets "wireguard_private_key"
if (-not (Test-Path $file)) { Write-Text $file ((& $wg genkey) -join "").Trim() }
$private = (Get-Content $file -Raw).Trim()
$public = (($private | & $wg pubkey) -join "").Trim()
if (-not $public) { throw "wg.exe made no key from $file. Remove that file and run this again." }
Write-Host "This host's public key, for the head's [Peer]: $public"

if (-not $HeadPublicKey) { return }
if (-not $Endpoint -or -not $HeadAddress -or -not $Address) {
    throw "A tunnel needs four values. Give -HeadPublicKey, -Endpoint, -HeadAddress and -Address together."
}
$folder = Join-Path $NodeHome "wireguard"
Protect-Folder $folder @("S-1-5-18") # LocalSystem, as which the tunnel runs
$config = Join-Path $folder "$TunnelName.conf"
Write-Text $config @"
[Interface]
PrivateKey = $private
Address = $Address/32

[Peer]
PublicKey = $HeadPublicKey
Endpoint = $Endpoint
AllowedIPs = $HeadAddress/32
PersistentKeepalive = 25
"@
Write-Host "Written: $config. Give it to install.ps1 with -WireGuardConfig."
