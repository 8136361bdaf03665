#!/bin/sh
# Serves TCP port $1: counts what each connection sends, and answers with the number. Returns when the port is open.
open() { netstat -ltn | grep -q ":$1 "; }
open "$1" && { echo "port in use"; exit 1; }
setsid nc -ll -p "$1" -e wc -c >/dev/null 2>"/tmp/serve.$1" &
for i in $(seq 250); do
	open "$1" && exit
	usleep 20000
done
cat "/tmp/serve.$1"
exit 1
