#!/usr/bin/env bash
# The CPU images, from a cache that knows them by their recipe: a fresh clone does not build what this machine has built before.
# SCORE_IMAGE_CACHE names the cache's folder; images of other recipes are dropped from it.
set -euo pipefail
cd "$(dirname "$0")/../.."
cache=${SCORE_IMAGE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/score/images}
mkdir -p "$cache"
recipes=$(PYTHONPATH=src python -m score.cluster.images recipe --variant cpu)
while read -r name recipe; do
  kept="$cache/$name-$recipe.sif"
  [ -e "containers/$name.sif" ] || [ ! -e "$kept" ] || cp --reflink=auto "$kept" "containers/$name.sif"
done <<<"$recipes"
make -C containers VARIANT=cpu
while read -r name recipe; do
  kept="$cache/$name-$recipe.sif"
  [ -e "$kept" ] && continue
  cp --reflink=auto "containers/$name.sif" "$kept.partial" && mv "$kept.partial" "$kept"
  find "$cache" -name "$name-*.sif" ! -path "$kept" -delete
done <<<"$recipes"
