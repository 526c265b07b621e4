package channel_test

import (
	"context"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/heddle-mesh/heddle/identity/channel"
)

// watched starts a server whose one stream never says more than its first word.
func watched(t *testing.T) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(channel.ServerAlive(0)...)
	healthv1.RegisterHealthServer(s, health.NewServer())
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String()
}

// watch opens the stream, and gives what ends it.
func watch(t *testing.T, client healthv1.HealthClient) (ended <-chan error) {
	t.Helper()
	stream, err := client.Watch(t.Context(), new(healthv1.HealthCheckRequest), grpc.WaitForReady(true))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	end := make(chan error, 1)
	go func() {
		_, err := stream.Recv()
		end <- err
	}()
	return end
}

// TestSilentServer: a server that vanishes without a word, its connections still open, is
// noticed, and the next call goes to another.
func TestSilentServer(t *testing.T) {
	t.Parallel()
	first, second := watched(t), watched(t)
	var gone atomic.Bool
	conn, err := grpc.NewClient("passthrough:///replicas", append(channel.ClientAlive(), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			var d net.Dialer
			if gone.Load() {
				return d.DialContext(ctx, "tcp", second)
			}
			c, err := d.DialContext(ctx, "tcp", first)
			closed, end := context.WithCancel(context.Background())
			return &unplugged{c, &gone, closed, end}, err
		}))...)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	client := healthv1.NewHealthClient(conn)
	ended := watch(t, client)
	gone.Store(true)
	if err := <-ended; status.Code(err) != codes.Unavailable {
		t.Errorf("the stream of the server that is gone ended with %v", err)
	}
	ended = watch(t, client)
	select {
	case err := <-ended:
		t.Errorf("the stream of the other server ended with %v", err)
	default:
	}
}

// TestSilentStream: an idle connection is left alone, however often it is asked whether
// the server is there.
func TestSilentStream(t *testing.T) {
	t.Parallel()
	conn, err := grpc.NewClient(watched(t), append(channel.ClientAlive(), grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	select {
	case err := <-watch(t, healthv1.NewHealthClient(conn)):
		t.Errorf("ended with %v", err)
	case <-time.After(45 * time.Second): // of the fourth ping a server makes an end
	}
}

// unplugged is a connection on which nothing more arrives from some moment on, not even
// its end.
type unplugged struct {
	net.Conn
	gone   *atomic.Bool
	closed context.Context // by us
	close  context.CancelFunc
}

func (c *unplugged) Read(p []byte) (int, error) {
	for {
		n, err := c.Conn.Read(p)
		if !c.gone.Load() {
			return n, err
		}
		if err != nil {
			<-c.closed.Done()
			return 0, net.ErrClosed
		}
	}
}

func (c *unplugged) Write(p []byte) (int, error) {
	if c.gone.Load() {
		return len(p), nil
	}
	return c.Conn.Write(p)
}

func (c *unplugged) Close() error {
	c.close()
	return c.Conn.Close()
}
