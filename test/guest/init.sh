#!/bin/busybox sh
# The guest's first process. It sets up the network card as the kernel command line says (guest.addr, guest.mtu: a Debian cloud kernel
# has no ip= of its own), then becomes a shell on the serial console for the other side, see console.go.
if [ "$1" != shell ]; then
	/bin/busybox --install -s /bin
	mount -t proc proc /proc
	mount -t sysfs sys /sys
	mount -t devtmpfs dev /dev
	dmesg -n 1 # the console is the shell's from here on
	for module in /modules/*.ko; do insmod "$module" || echo "insmod $module failed"; done
	for word in $(cat /proc/cmdline); do
		case $word in guest.*=*) export "${word#guest.}" ;; esac
	done
	for i in $(seq 50); do
		[ -e /sys/class/net/eth0 ] && break
		usleep 20000
	done
	ip link set lo up
	ip link set eth0 mtu "$mtu" up && { [ -z "$addr" ] || ip addr add "$addr" dev eth0; }
	exec setsid cttyhack "$0" shell $? # a controlling terminal, so that ^C reaches what the shell runs
fi

# A line is a number and a command; the command's output follows, then, on a line of its own, the number again and how it ended.
stty -echo noflsh
trap : INT
printf '\n#end 0 %d\n' "$2"
while :; do
	read -r number line || continue
	sh -c "$line" 2>&1 </dev/null
	printf '\n#end %d %d\n' "$number" $?
done
