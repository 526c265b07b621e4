package serve

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
)

// listenUnix opens a socket that only our user may open. One that a dead control plane
// left behind is replaced; a living one is an error.
func listenUnix(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("make the socket's folder: %w", err)
	}
	if conn, err := net.Dial("unix", path); err == nil {
		conn.Close()
		return nil, fmt.Errorf("listen on %s: another process serves there; stop it or choose another --socket", path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// serveGRPC serves until the context is done, then cuts what is left: configuration
// streams never end by themselves.
func serveGRPC(ctx context.Context, group *errgroup.Group, server *grpc.Server, l net.Listener) {
	stop := context.AfterFunc(ctx, server.Stop)
	group.Go(func() error {
		defer stop()
		if err := server.Serve(l); err != nil && ctx.Err() == nil {
			return fmt.Errorf("serve %s: %w", l.Addr(), err)
		}
		return nil
	})
}
