package capture

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// maxForwarded bounds the connections of one Forward; beyond it new ones
// wait in the listener's backlog.
const maxForwarded = 1024

// Forward publishes a port: it connects every connection that listener
// accepts with one that dial makes, such as one inside a namespace, until ctx
// is done, and then closes the listener and all connections and waits. If dial
// fails the client's connection is closed. A side that has finished sending
// is told to the other, which may go on (half-close). It returns an error
// only if the listener fails.
func Forward(ctx context.Context, listener net.Listener, dial func(context.Context) (net.Conn, error)) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	defer context.AfterFunc(ctx, func() { listener.Close() })()
	defer listener.Close()
	slots := make(chan struct{}, maxForwarded)
	for {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		client, err := listener.Accept()
		if ctx.Err() != nil {
			if err == nil {
				client.Close()
			}
			return nil
		}
		if errors.Is(err, net.ErrClosed) {
			return fmt.Errorf("publish port: %w", err)
		}
		if err != nil { // out of descriptors, or a client that left already
			<-slots
			pause(ctx, 50*time.Millisecond)
			continue
		}
		wg.Go(func() {
			defer func() { <-slots }()
			defer client.Close()
			server, err := dial(ctx)
			if err != nil {
				return
			}
			defer server.Close()
			splice(ctx, client, server)
		})
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// splice copies both ways until both sides are done, one fails, or ctx is done.
func splice(ctx context.Context, a, b net.Conn) {
	closeBoth := func() {
		a.Close()
		b.Close()
	}
	defer context.AfterFunc(ctx, closeBoth)()
	var wg sync.WaitGroup
	pipe := func(dst, src net.Conn) {
		if _, err := io.Copy(dst, src); err != nil {
			closeBoth()
			return
		}
		if half, ok := dst.(interface{ CloseWrite() error }); !ok || half.CloseWrite() != nil {
			closeBoth()
		}
	}
	wg.Go(func() { pipe(a, b) })
	wg.Go(func() { pipe(b, a) })
	wg.Wait()
}
