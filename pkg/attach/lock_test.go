package attach

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/tapbridge/tapbridge/pkg/bridge"
	"github.com/tapbridge/tapbridge/pkg/port"
)

// holder is the environment variable that makes TestHoldLock somebody else's
// process with a bridge's lock.
const holder = "TAPBRIDGE_TEST_HOLD"

func TestHoldLock(t *testing.T) {
	name := os.Getenv(holder)
	if name == "" {
		return
	}
	if _, err := lock(name); err != nil {
		t.Fatal(err)
	}
	fmt.Println("held")
	time.Sleep(10 * time.Minute)
}

// A lock that another process holds is waited for so long, and no longer; with the
// process it is gone, however that ends.
func TestLockIsBounded(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	a := wish(port.Veth)
	child := n.host.Command("/proc/self/exe", "-test.run=^TestHoldLock$")
	child.Env = append(os.Environ(), holder+"="+a.Bridge)
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer child.Wait()
	defer child.Process.Kill()
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "held\n" {
		t.Fatalf("the child says %q, %v", line, err)
	}
	before := n.world()
	if err := n.apply(a); !errors.Is(err, ErrBusy) {
		t.Errorf("with the lock held: %v, want %v", err, ErrBusy)
	}
	n.wantWorld(before, "refused:")
	if err := n.remove(a.ID); err != nil { // DEL waits for no bridge
		t.Error(err)
	}
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	n.mustApply(a)
}

// Who looks at a bridge that another ADD is just making waits until it is made: it
// would be taken for somebody else's before that, with another MTU.
func TestBridgeBeingMadeIsWaitedFor(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.site(func(onlooker *Site) {
		unlock, err := lock("br1")
		if err != nil {
			t.Fatal(err)
		}
		n.hostRun("ip link add br1 address 02:00:00:01:02:03 mtu 1501 group 872481283 type bridge") // 0x34010203
		seen := make(chan bridge.Bridge)
		go func() {
			var br bridge.Bridge
			var err error
			n.host.Do(func() { br, err = onlooker.Bridge("br1") })
			if err != nil {
				t.Error(err)
			}
			seen <- br
		}()
		time.Sleep(100 * time.Millisecond)
		n.hostRun("ip link set br1 alias tapbridge-bridge/1 mtu 1500")
		if err := unlock(); err != nil {
			t.Error(err)
		}
		if br := <-seen; !br.Made || br.MTU != 1500 {
			t.Errorf("it is taken for %+v", br)
		}
	})
}
