#!/usr/bin/env bash
# Packages of the operating system (Debian) that `make test-system` and the pictures of the dashboards need:
# a real Prometheus with promtool, Alertmanager, a browser without a display, and the tool that checks units of systemd.
set -euo pipefail
missing=()
command -v prometheus >/dev/null && command -v promtool >/dev/null || missing+=(prometheus)
command -v prometheus-alertmanager >/dev/null && command -v amtool >/dev/null || missing+=(prometheus-alertmanager)
command -v chromium >/dev/null || missing+=(chromium)
command -v systemd-analyze >/dev/null || missing+=(systemd)
command -v fc-list >/dev/null && [[ -n $(fc-list 'DejaVu Sans' 2>/dev/null) ]] || missing+=(fontconfig fonts-dejavu-core)
[[ ${#missing[@]} -eq 0 ]] && exit 0
sudo=$([[ $(id -u) -eq 0 ]] && echo "" || echo sudo)
# The packages would start their services at once; exit 101 tells them not to.
policy=/usr/sbin/policy-rc.d
if ! [[ -e $policy ]]; then
    printf '#!/bin/sh\nexit 101\n' | $sudo tee $policy >/dev/null
    $sudo chmod +x $policy
    trap '$sudo rm -f $policy' EXIT
fi
$sudo apt-get update -qq
DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
