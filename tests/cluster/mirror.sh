#!/usr/bin/env bash
# Prints the Debian mirror that this machine's own apt uses (`mirror.sh`), so that no host name has to be written down anywhere.
set -euo pipefail
# shellcheck disable=SC2016  # $(REPO_URI) is a field of apt's, not of the shell
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Label: Debian' | sed -n 1p)
[ -n "$mirror" ] || { echo "error: apt knows no Debian mirror yet (mend it with: apt-get update)" >&2; exit 1; }
echo "$mirror"
