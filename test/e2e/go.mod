module github.com/tapbridge/tapbridge/test/e2e

go 1.26.0

replace (
	github.com/tapbridge/tapbridge => ../../
	github.com/tapbridge/tapbridge/test => ../
)

require (
	github.com/tapbridge/tapbridge v0.0.0-00010101000000-000000000000
	github.com/tapbridge/tapbridge/test v0.0.0-00010101000000-000000000000
	golang.org/x/sync v0.23.0
	golang.org/x/sys v0.49.0
	google.golang.org/grpc v1.83.2
	k8s.io/cri-api v0.36.3
)

require (
	github.com/containernetworking/plugins v1.9.1 // indirect
	github.com/google/btree v1.1.2 // indirect
	github.com/vishvananda/netlink v1.3.1 // indirect
	github.com/vishvananda/netns v0.0.5 // indirect
	golang.org/x/exp v0.0.0-20240719175910-8a7402abbf56 // indirect
	golang.org/x/net v0.58.0 // indirect
	golang.org/x/text v0.41.0 // indirect
	golang.org/x/time v0.12.0 // indirect
	google.golang.org/genproto/googleapis/rpc v0.0.0-20260526163538-3dc84a4a5aaa // indirect
	google.golang.org/protobuf v1.36.12-0.20260120151049-f2248ac996af // indirect
	gvisor.dev/gvisor v0.0.0-20260224225140-573d5e7127a8 // indirect
)
