package capture

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"
)

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func dialTo(l net.Listener) func(context.Context) (net.Conn, error) {
	return func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", l.Addr().String())
	}
}

// The client stops sending first and still gets the whole answer.
func TestForwardHalfClose(t *testing.T) {
	server, public := listen(t), listen(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- Forward(ctx, public, dialTo(server)) }()
	go func() {
		c, err := server.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		b, _ := io.ReadAll(c) // ends only if the client's end is passed on
		_, _ = c.Write(append([]byte("got "), b...))
	}()
	c, err := net.Dial("tcp", public.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got := readAnswer(c); got != "got hello" {
		t.Errorf("got %q", got)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// The end of Forward ends open connections, and it waits for them.
func TestForwardCancel(t *testing.T) {
	server, public := listen(t), listen(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- Forward(ctx, public, dialTo(server)) }()
	c, err := net.Dial("tcp", public.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s, err := server.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the connection lives on: %v", err)
	}
}

func TestForwardDialFails(t *testing.T) {
	public := listen(t)
	done := make(chan error, 1)
	go func() {
		done <- Forward(t.Context(), public, func(context.Context) (net.Conn, error) { return nil, errors.New("down") })
	}()
	for range 3 {
		c, err := net.Dial("tcp", public.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		if got := readAnswer(c); strings.Contains(got, "timeout") {
			t.Error("the client was left waiting")
		}
		c.Close()
	}
	public.Close()
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Errorf("listener closed under it: %v", err)
	}
}

// Publishing a workload's port: the listener outside, the app inside.
func TestForwardIntoNamespace(t *testing.T) {
	eachMode(t, func(t *testing.T, m Mode) {
		ns := newNamespace(t, openNetwork(t, testConfig(t, m)), NamespaceConfig{Name: "a"})
		serve(t, ns, "app", "127.0.0.1:8080")
		public := listen(t)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			done <- Forward(ctx, public, func(ctx context.Context) (net.Conn, error) { return ns.Dial(ctx, "tcp", "127.0.0.1:8080") })
		}()
		if got := ask(t, HostNamespace(testLog(t)), public.Addr().String()); got != "app 127.0.0.1:8080" {
			t.Errorf("got %q", got)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
