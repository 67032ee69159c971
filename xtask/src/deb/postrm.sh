#!/bin/sh
set -e

if [ "$1" = purge ]; then
    rm -rf "$DPKG_ROOT/var/lib/enforcer" "$DPKG_ROOT/etc/enforcer/policies.d"
    rmdir --ignore-fail-on-non-empty "$DPKG_ROOT/etc/enforcer" 2>/dev/null || true
fi
[ -z "$DPKG_ROOT" ] || exit 0
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload
fi
