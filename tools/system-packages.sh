#!/usr/bin/env bash
# What pip cannot bring: a software OpenGL for the simulators, and a browser for the report's test.
# Elsewhere than on Debian, or without the right to install, it only says what is missing; `emt doctor` says more.
set -u
packages=(libegl1 libgl1 libgl1-mesa-dri chromium chromium-driver)

command -v dpkg-query >/dev/null || { echo "Not a Debian system: install EGL (Mesa) and Chromium by hand."; exit 0; }
missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0

run=()
if [ "$(id -u)" -ne 0 ]; then
  if sudo -n true 2>/dev/null; then run=(sudo -n); else
    echo "Missing system packages; install them with: sudo apt-get install ${missing[*]}"
    exit 0
  fi
fi
export DEBIAN_FRONTEND=noninteractive
"${run[@]}" apt-get update -qq || echo "apt-get update failed; going on with the lists at hand"
"${run[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null ||
  echo "Could not install: ${missing[*]}. What needs them will say so."
exit 0
