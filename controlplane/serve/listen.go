package serve

import (
	"fmt"
	"net"
	"os"
	"path/filepath"

	"github.com/heddle-mesh/heddle/identity/channel"
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
	return channel.ListenUnix(path)
}
