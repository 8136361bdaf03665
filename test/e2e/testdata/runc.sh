#!/bin/sh
# runc, after two changes to what a runtime asks for. A pod for which kubelet names no cgroup comes below that of the box instead of
# /k8s.io. And nothing may be made less likely to be killed, on a machine without CAP_SYS_RESOURCE: CRI-O cannot be told to leave that.
for word; do
	case $previous in --bundle | -b) bundle=$word ;; esac
	case $word in --bundle=*) bundle=${word#--bundle=} ;; esac
	previous=$word
done
if [ -f "$bundle/config.json" ]; then
	sed -i -e 's#"cgroupsPath": *"/k8s.io/#"cgroupsPath":"{{.Cgroup}}/#' -e 's/"oomScoreAdj": *-[0-9]*/"oomScoreAdj":0/' "$bundle/config.json"
fi
exec {{.Runc}} "$@"
