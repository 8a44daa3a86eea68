<#
.SYNOPSIS
Installs Membridge's client for this user of Windows, upgrades it, takes it away again.

.DESCRIPTION
Makes an environment for each version below PREFIX\versions, checks it, and switches PREFIX\current to it. No
administrator is needed and no service is installed: the node does not run on Windows. What it writes is in the receipt
PREFIX\receipt.json, which drives -Uninstall. Keys and settings in %APPDATA%\Membridge stay.

Every action is inside a function and the last line calls the first one, so that a download that was cut off does
nothing. What is not PowerShell's business is in windows_client.py, which comes with the package.

.PARAMETER Uninstall
Removes what the receipt lists; keeps keys and settings.

.PARAMETER DryRun
Says what would happen and changes nothing; the same as -WhatIf.

.PARAMETER Prefix
Where the environments are. By default %LOCALAPPDATA%\Membridge.

.PARAMETER Version
The version to install from the package index. By default the newest.

.PARAMETER From
A wheel or a source tree to install instead.

.EXAMPLE
powershell -ExecutionPolicy Bypass -File install.ps1 -From membridge-0.1.0-py3-none-any.whl
#>
[CmdletBinding(SupportsShouldProcess)]
param(
    [switch]$Uninstall,
    [switch]$DryRun,
    [string]$Prefix,
    [string]$Version,
    [string]$From
)

function Install-Membridge {
    [CmdletBinding(SupportsShouldProcess)]
    param(
        [switch]$Uninstall,
        [switch]$DryRun,
        [string]$Prefix,
        [string]$Version,
        [string]$From
    )

    Set-StrictMode -Version Latest
    $ErrorActionPreference = 'Stop'
    if ($env:OS -ne 'Windows_NT') {
        throw 'This script is for Windows. On Linux and macOS run deploy/install.sh.'
    }
    if ($DryRun) {
        $null = $PSBoundParameters.Remove('DryRun')
        $PSBoundParameters['WhatIf'] = $true
        Install-Membridge @PSBoundParameters
        return
    }
    if ($Version -and $From) {
        throw 'Give -Version or -From, not both: what -From names has its own version.'
    }
    if (-not $Prefix) {
        $Prefix = Join-Path -Path $env:LOCALAPPDATA -ChildPath 'Membridge'
    }
    $Prefix = $PSCmdlet.GetUnresolvedProviderPathFromPSPath($Prefix).TrimEnd('\')
    $python = Find-Python
    if ($Uninstall) {
        $client = Join-Path -Path $Prefix -ChildPath 'windows_client.py'
        $there = Test-Path -LiteralPath $client
        if ($PSCmdlet.ShouldProcess($Prefix, 'Remove the client')) {
            Clear-Unfinished -Prefix $Prefix
            if (-not $there) {
                throw "No client is installed in $Prefix. Give the folder that it was installed to: -Prefix FOLDER."
            }
            Invoke-Program -Program $python -Arguments '-I', $client, 'uninstall', $Prefix
        } elseif ($there) {
            Invoke-Program -Program $python -Arguments '-I', $client, 'uninstall', $Prefix, '--dry-run'
        }
        return
    }
    $what = 'membridge'
    if ($Version) { $what = "membridge==$Version" }
    if ($From) { $what = (Resolve-Path -LiteralPath $From).ProviderPath }
    if ($PSCmdlet.ShouldProcess($Prefix, "Install $what with $python, and add its bin folder to the user's PATH")) {
        Add-Version -Python $python -What $what -Prefix $Prefix
    }
}

# Returns the newest Python that the launcher knows and every package of the lock file has a wheel for. Those of the
# Microsoft Store are left out: what they write below %LOCALAPPDATA% no other program sees.
function Find-Python {
    $launcher = Get-Command -Name 'py.exe' -CommandType Application -ErrorAction SilentlyContinue |
        Select-Object -First 1
    if ($launcher) {
        foreach ($line in (& $launcher.Source '-0p')) {
            if ($line -notmatch '([A-Za-z]:\\.+\.exe)\s*$') { continue }
            $candidate = $Matches[1]
            if ($candidate -like '*\WindowsApps\*' -or -not (Test-Path -LiteralPath $candidate)) { continue }
            $question = 'import sys; print((3, 11) <= sys.version_info[:2] <= (3, 14) and sys.maxsize > 2**32 and sys.prefix == sys.base_prefix)'
            if ((& $candidate '-I' '-c' $question) -eq 'True') { return $candidate }
        }
    }
    throw 'The launcher py knows no 64-bit Python 3.11 to 3.14. Install one: winget install --exact --id Python.Python.3.13'
}

# Runs a program and fails with it. Its output is not redirected: with 'Stop', Windows PowerShell 5.1 ends at the first
# line on standard error that it reads.
function Invoke-Program {
    param([string]$Program, [string[]]$Arguments)

    & $Program @Arguments | Out-Host
    if ($LASTEXITCODE -ne 0) {
        throw "$Program $Arguments failed with exit code ${LASTEXITCODE}: see above. What was installed before is unchanged."
    }
}

# Builds an environment beside those that are there, checks it, and switches to it. Until the switch nothing that runs
# is touched; whatever fails or is stopped, the new environment goes again.
function Add-Version {
    param([string]$Python, [string]$What, [string]$Prefix)

    $versions = Join-Path -Path $Prefix -ChildPath 'versions'
    $work = Join-Path -Path $Prefix -ChildPath 'work'
    # -P: a folder `membridge` or `pip` where this runs, as in a clone, is not what Python loads.
    $pip = '-P', '-m', 'pip', '--disable-pip-version-check', '--no-cache-dir', '--quiet'
    $lock = $null
    try {
        $null = New-Item -ItemType Directory -Force -Path $versions
        # No other process opens it until it is closed, which the end of this process does too, and then it is gone.
        $lock = [System.IO.FileStream]::new(
            "$Prefix.lock", [System.IO.FileMode]::OpenOrCreate, [System.IO.FileAccess]::ReadWrite,
            [System.IO.FileShare]::None, 1, [System.IO.FileOptions]::DeleteOnClose)
        Clear-Unfinished -Prefix $Prefix
        Invoke-Program -Program $Python -Arguments ($pip + 'wheel', '--no-deps', '--only-binary=:all:', '--wheel-dir', $work, $What)
        $wheel = Get-ChildItem -LiteralPath $work -Filter 'membridge-*.whl' | Select-Object -First 1
        $version = ($wheel.Name -split '-')[1]
        $name = $version
        for ($number = 2; Test-Path -LiteralPath (Join-Path -Path $versions -ChildPath $name); $number++) {
            $name = "$version-$number"
        }
        $environment = Join-Path -Path $versions -ChildPath $name
        Invoke-Program -Program $Python -Arguments '-P', '-m', 'venv', $environment
        $own = Join-Path -Path $environment -ChildPath 'Scripts\python.exe'
        $package = Join-Path -Path $environment -ChildPath 'Lib\site-packages\membridge'
        $lockFile = Join-Path -Path $package -ChildPath 'embedded\requirements.lock'
        Invoke-Program -Program $own -Arguments ($pip + 'install', '--no-deps', $wheel.FullName)
        Invoke-Program -Program $own -Arguments ($pip + 'install', '--no-deps', '--only-binary=:all:', '--require-hashes', '--requirement', $lockFile)
        Invoke-Program -Program $own -Arguments '-P', '-m', 'membridge.cli.main', 'validate'
        $client = Join-Path -Path $package -ChildPath 'installation\windows_client.py'
        Invoke-Program -Program $Python -Arguments '-I', $client, 'activate', $Prefix, $name
    } finally {
        if ($lock) {
            Clear-Unfinished -Prefix $Prefix
            $lock.Dispose()
        }
    }
}

# Removes what a build left: the environments that were never switched to have no file `complete`.
function Clear-Unfinished {
    param([string]$Prefix)

    $left = @(Join-Path -Path $Prefix -ChildPath 'work')
    $left += @(
        Get-ChildItem -LiteralPath (Join-Path -Path $Prefix -ChildPath 'versions') -Directory -ErrorAction SilentlyContinue |
            Where-Object -FilterScript { -not (Test-Path -LiteralPath (Join-Path -Path $_.FullName -ChildPath 'complete')) } |
            Select-Object -ExpandProperty FullName
    )
    foreach ($folder in $left) {
        if (Test-Path -LiteralPath $folder) { Remove-Item -LiteralPath $folder -Recurse -Force }
    }
}

Install-Membridge @PSBoundParameters
