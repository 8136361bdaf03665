#!/bin/sh
# Stands where a runtime looks for the plugin $0.real. Each call becomes a directory under $0.calls with what the plugin was given
# and what it answered, complete as soon as it is there.
call=$(mktemp -d "$0.calls/.XXXXXX")
env >"$call/env"
cat >"$call/stdin"
"$0.real" <"$call/stdin" >"$call/stdout" 2>"$call/stderr"
echo $? >"$call/code"
done=$0.calls/$(date +%s.%N).$CNI_COMMAND.$$
mv "$call" "$done"
cat "$done/stderr" >&2
cat "$done/stdout"
exit "$(cat "$done/code")"
