#!/usr/bin/env bash
# Packages of the operating system (Debian) that `make test-system` needs: a real Prometheus and promtool.
set -euo pipefail
if command -v prometheus >/dev/null && command -v promtool >/dev/null; then
    exit 0
fi
sudo=$([[ $(id -u) -eq 0 ]] && echo "" || echo sudo)
# The packages would start their services at once; exit 101 tells them not to.
policy=/usr/sbin/policy-rc.d
if ! [[ -e $policy ]]; then
    printf '#!/bin/sh\nexit 101\n' | $sudo tee $policy >/dev/null
    $sudo chmod +x $policy
    trap '$sudo rm -f $policy' EXIT
fi
$sudo apt-get update -qq
DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends prometheus >/dev/null
