#!/bin/sh
set -e

[ -z "$DPKG_ROOT" ] || exit 0

# An upgrade stops nothing: the new agent takes over.
if [ "$1" = remove ]; then
    if [ -d /run/systemd/system ]; then
        systemctl disable --now enforcer.service
    fi
    # Without it, programs would go on enforcing, and nobody could change what.
    enforcer uninstall
fi
