// Package guest puts a guest on a tap: a network stack of its own behind the device a plugin made, which answers ping, sends
// ping, serves TCP and transfers bytes. Making the tap, its namespace and its bridge is the caller's business, and so is what the
// traffic is meant to show.
//
// There are two kinds, because they prove different things:
//
//   - [Netstack] is gVisor's stack in this process. It starts in a millisecond and needs nothing but /dev/net/tun, so a test can
//     have a dozen. It is no virtual machine: it opens the tap the simplest way there is, without vnet_hdr and without offloads, unless asked.
//   - [QEMU] is Linux under a real VMM, which opens the tap by name inside the pod's namespace, negotiates vnet_hdr and offloads,
//     and hands the kernel frames larger than the MTU. It boots in a few seconds and needs Debian packages that [FindTools] fetches.
//     [Boot] is for one whose QEMU the caller starts, in a container for example.
//
// A guest of either kind answers the other: what Serve speaks is the same for both.
//
// The package lives in a module of its own, so that gVisor stays out of the plugin's dependencies.
package guest
