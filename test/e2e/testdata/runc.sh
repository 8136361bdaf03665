#!/bin/sh
# runc for a machine that lacks CAP_SYS_RESOURCE: nothing may make itself less likely to be killed there, and CRI-O cannot be told
# to leave that out of what it asks for.
for word; do
	case $previous in --bundle | -b) bundle=$word ;; esac
	case $word in --bundle=*) bundle=${word#--bundle=} ;; esac
	previous=$word
done
if [ -f "$bundle/config.json" ]; then
	sed -i 's/"oomScoreAdj": *-[0-9]*/"oomScoreAdj":0/' "$bundle/config.json"
fi
exec {{.}} "$@"
