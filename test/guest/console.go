package guest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// console is a guest's serial line, with init.sh at the other end to run commands.
type console struct {
	in      io.Writer
	turn    chan struct{} // holds a token while a command runs
	number  int           // of that command; 0 is the boot
	replies chan reply

	ended     chan struct{} // closed when the guest says no more
	lastWords string        // what it said after the last reply, once ended is closed
}

// reply is what a command said and how it ended.
type reply struct {
	number, status int
	said           string
}

// newConsole returns a console that writes to in and hears out, up to its end.
func newConsole(in io.Writer, out io.ReadCloser) *console {
	c := &console{in: in, turn: make(chan struct{}, 1), replies: make(chan reply, 1), ended: make(chan struct{})}
	go c.listen(out)
	return c
}

func (c *console) listen(out io.ReadCloser) {
	defer close(c.ended)
	defer out.Close()
	var said strings.Builder
	for lines := bufio.NewReader(out); ; {
		line, err := lines.ReadString('\n')
		if err != nil {
			c.lastWords = said.String() + line
			return
		}
		var r reply
		if n, _ := fmt.Sscanf(line, "#end %d %d", &r.number, &r.status); n < 2 {
			said.WriteString(strings.TrimRight(line, "\r\n") + "\n")
			continue
		}
		r.said = strings.TrimSpace(said.String())
		said.Reset()
		c.deliver(r)
	}
}

// deliver puts r where await finds it, in the place of a reply that came too late for its command.
func (c *console) deliver(r reply) {
	select {
	case <-c.replies:
	default:
	}
	c.replies <- r
}

// run runs a shell command in the guest and returns what it said. When ctx ends the command is interrupted.
func (c *console) run(ctx context.Context, command string) (reply, error) {
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	case <-ctx.Done():
		return reply{}, ctx.Err()
	}
	c.number++
	if err := c.write(fmt.Sprintf("%d %s\n", c.number, command)); err != nil {
		return reply{}, err
	}
	r, err := c.await(ctx)
	if err != nil && errors.Is(err, ctx.Err()) {
		err = errors.Join(err, c.interrupt())
	}
	return r, err
}

// await waits for the reply to the command that runs.
func (c *console) await(ctx context.Context) (reply, error) {
	for {
		select {
		case r := <-c.replies:
			if r.number == c.number {
				return r, nil
			}
		case <-c.ended:
			return reply{}, c.end()
		case <-ctx.Done():
			return reply{}, ctx.Err()
		}
	}
}

// interrupt presses ^C until the command that runs has ended: the first one may come before it has even begun.
func (c *console) interrupt() error {
	const presses = 10
	for range presses {
		if err := c.write("\x03"); err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		_, err := c.await(ctx)
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) {
			return err
		}
	}
	return fmt.Errorf("the guest ignored ^C, %d times", presses)
}

func (c *console) write(s string) error {
	if _, err := io.WriteString(c.in, s); err != nil {
		<-c.ended
		return c.end()
	}
	return nil
}

func (c *console) end() error {
	return fmt.Errorf("the guest has ended; it last said %q", c.lastWords)
}
