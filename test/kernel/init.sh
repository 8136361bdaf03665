#!/bin/busybox sh
# The guest's first process. It runs the test binaries that /suites lists, on the serial console, and powers off; machine_test.go
# listens. Whatever goes wrong before that ends this process, and with it the kernel: panic=-1.
set -e
/bin/busybox --install -s /bin
export PATH=/usr/sbin:/bin TAPBRIDGE_TEST_REQUIRE=all TAPBRIDGE_TEST_NIC=eth0
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t selinuxfs selinux /sys/fs/selinux
mount -t tmpfs run /run
mount -t tmpfs tmp /tmp
for module in /modules/*.ko; do insmod "$module"; done
ip link set lo up

# A line is a package, its binary and the tests to run. Most of them wait for the kernel, which tells a link's carrier up to a second
# late: hence more at once than there are CPUs.
while read -r package binary tests; do
	cd "/src/$package"
	status=0
	"$binary" -test.v -test.parallel 8 -test.timeout 15m -test.run "$tests" </dev/null 2>&1 || status=$?
	printf '\n#end %s %d\n' "$package" $status
done </suites
reboot -f # with QEMU's -no-reboot: off
