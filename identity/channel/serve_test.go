package channel_test

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/heddle-mesh/heddle/identity/attest"
	"github.com/heddle-mesh/heddle/identity/channel"
)

// socketPath is short: the limit is 107 bytes.
func socketPath(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "ch")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil { // so that the socket's own mode decides
		t.Fatal(err)
	}
	return filepath.Join(dir, "s")
}

func listen(t *testing.T, path string) net.Listener {
	t.Helper()
	l, err := channel.ListenUnix(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// TestSocketIsPrivate: the socket is our user's alone, whatever the umask.
func TestSocketIsPrivate(t *testing.T) {
	path := socketPath(t)
	defer syscall.Umask(syscall.Umask(0))
	listen(t, path)
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Mode(); got != fs.ModeSocket|0o600 {
		t.Errorf("the socket has mode %v", got)
	}
	if os.Geteuid() != 0 {
		return // we can be nobody else
	}
	failed := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlock: a thread that is somebody else ends here
		if err := unix.Setfsuid(65534); err != nil {
			failed <- err
			return
		}
		conn, err := net.Dial("unix", path)
		if err == nil {
			conn.Close()
		}
		failed <- err
	}()
	if err := <-failed; !errors.Is(err, fs.ErrPermission) {
		t.Errorf("another user connects: %v", err)
	}
}

// TestSocketLeftBehind: a socket of a process that was killed is no obstacle; a folder is.
func TestSocketLeftBehind(t *testing.T) {
	path := socketPath(t)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	if _, err := net.Dial("unix", path); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Fatalf("the socket left behind: %v", err)
	}
	listen(t, path)
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()

	taken := filepath.Join(filepath.Dir(path), "d")
	if err := os.MkdirAll(filepath.Join(taken, "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := channel.ListenUnix(taken); err == nil || !strings.Contains(err.Error(), taken) {
		t.Errorf("in place of a folder: %v", err)
	}
}

// TestPeerCredentials: a server on such a socket knows the process that calls, which has
// no SVID by that.
func TestPeerCredentials(t *testing.T) {
	path := socketPath(t)
	var got attest.Evidence
	named := true
	run(t, listen(t, path), grpc.Creds(attest.UnixCredentials()), grpc.UnaryInterceptor(
		func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
			got = attest.FromContext(ctx)
			_, named = channel.PeerID(ctx)
			return h(ctx, req)
		}))
	_, err := client(t, "unix:"+path, attest.UnixCredentials()).Check(t.Context(), &healthv1.HealthCheckRequest{})
	want(t, "a call", err, codes.OK, "")
	self := attest.PeerCred{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid()), PID: int32(os.Getpid())}
	if got.Peer == nil || *got.Peer != self || named || len(got.Certificates) > 0 {
		t.Errorf("the caller is %+v, %v; want %+v", got.Peer, named, self)
	}
}

// TestServeEnds: with its context Serve ends at once, though streams are open, and takes
// its socket away; without, it says what went wrong with which address.
func TestServeEnds(t *testing.T) {
	path := socketPath(t)
	stop := run(t, listen(t, path), grpc.Creds(attest.UnixCredentials()))
	stream, err := client(t, "unix:"+path, attest.UnixCredentials()).Watch(t.Context(), &healthv1.HealthCheckRequest{})
	if err == nil {
		_, err = stream.Recv()
	}
	want(t, "an open stream", err, codes.OK, "")
	if err := stop(); err != nil {
		t.Errorf("ended by its context: %v", err)
	}
	_, err = stream.Recv()
	want(t, "the stream after the end", err, codes.Unavailable, "")
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket after the end: %v", err)
	}

	closed := listen(t, path)
	closed.Close()
	if err := channel.Serve(t.Context(), grpc.NewServer(), closed); !errors.Is(err, net.ErrClosed) || !strings.Contains(err.Error(), "serve "+path) {
		t.Errorf("a closed listener: %v", err)
	}
}
