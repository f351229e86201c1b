#!/bin/sh
# Push one event: ./push.sh [CHANNEL [EVENT [DATA]]]
# DATA is JSON, or plain text. This is the v1 API, a form: curl does all the encoding.
set -eu

channel=${1:-news}
event=${2:-hello}
data=${3:-'{"text":"It works"}'}

# a name may hold anything, a slash too
encoded() { printf %s "$1" | od -An -v -tx1 | tr -d '\n' | sed 's/ /%/g'; }

set --
[ -z "${WELLHEAD_PUSH_KEY:-}" ] || set -- --header "Authorization: Bearer $WELLHEAD_PUSH_KEY"
curl --silent --show-error --fail-with-body --data-urlencode "data=$data" "$@" \
    "${WELLHEAD_MASTER:-http://127.0.0.1:7777}/api/push/$(encoded "${WELLHEAD_APP:-demo}")/$(encoded "$channel")/$(encoded "$event")"
echo
