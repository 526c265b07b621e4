package sidecar

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/heddle-mesh/heddle/identity/attest"
	"github.com/heddle-mesh/heddle/identity/spiffeid"
	"github.com/heddle-mesh/heddle/proxy/capture"
)

// Config is a sidecar's.
type Config struct {
	ID       spiffeid.ID
	Workload string // unique in the namespace
	Ports    []Port
	Labels   map[string]string
	Zone     string

	// Socket and Address are the control plane's Unix socket, for the first SVID, and its
	// TCP port, for all else.
	Socket, Address string
	Token           attest.JoinToken

	StateDir string // private to the sidecar: SVID, last good configuration
	RunDir   string // sockets; Envoy's and the application's users reach into it
	Status   string // path of the status socket; "" = RunDir/status.sock

	Capture   capture.Mode
	Network   capture.NetworkConfig // not in Explicit
	Upstreams []Upstream            // Explicit only
	Publish   []Publish
	Pod       *Pod // nil outside of Kubernetes

	ClusterDomain string
	Prefixes      []netip.Prefix // of the mesh's addresses, for reverse DNS
	Resolvconf    string         // the machine's, whose servers answer for the outside

	Envoy       string // path of the program
	Concurrency int
	LogLevel    string
	Hurry       <-chan struct{} // closed: kill Envoy and the application; nil = never
	Drain       time.Duration   // between the announcement of the end and the application's SIGTERM
	Collector   string          // host:port that takes OTLP over gRPC; "" = traces are dropped
	Metrics     string          // address for Prometheus; in captured modes in the workload's namespace

	User      string // the application's: name or UID[:GID]; "" = ours
	ReadyHTTP string // path that answers 2xx while the workload is to get requests
	Command   []string
	Env       []string
	Dir       string

	Log *slog.Logger
}

// Port is one port of the application.
type Port struct {
	Number uint16 // as services know it
	Local  uint16 // where the application listens on loopback: Number, but for Explicit
}

// ParsePort reads PORT or PORT=LOCAL.
func ParsePort(s string) (Port, error) {
	number, local, ok := strings.Cut(s, "=")
	if !ok {
		local = number
	}
	n, err := parsePort(number)
	if err != nil {
		return Port{}, err
	}
	l, err := parsePort(local)
	return Port{n, l}, err
}

// Upstream is a service's port on a local address.
type Upstream struct {
	Service string // NAME or NAME.NAMESPACE
	Port    uint16
	Local   netip.AddrPort
}

// ParseUpstream reads SERVICE:PORT=ADDRESS:PORT, such as api:80=127.0.0.1:9001.
func ParseUpstream(s string) (Upstream, error) {
	form := fmt.Errorf("upstream %q: want SERVICE:PORT=ADDRESS:PORT, such as api:80=127.0.0.1:9001", s)
	remote, local, ok := strings.Cut(s, "=")
	service, port, ok2 := strings.Cut(remote, ":")
	if !ok || !ok2 || service == "" {
		return Upstream{}, form
	}
	n, err := parsePort(port)
	if err != nil {
		return Upstream{}, fmt.Errorf("upstream %q: %w", s, err)
	}
	addr, err := netip.ParseAddrPort(local)
	if err != nil || addr.Port() == 0 {
		return Upstream{}, form
	}
	if !addr.Addr().IsLoopback() {
		return Upstream{}, fmt.Errorf("upstream %q: %s is not a loopback address: whoever reaches it would act as this workload", s, addr.Addr())
	}
	return Upstream{service, n, addr}, nil
}

// Publish opens a port of the workload on the machine, past the mesh: for browsers.
type Publish struct {
	Address string // ADDRESS:PORT to listen on; "" where File is set
	File    int    // descriptor of a socket that listens already
	Port    uint16 // the application's
}

// ParsePublish reads ADDRESS:PORT=PORT or fd:N=PORT.
func ParsePublish(s string) (Publish, error) {
	from, to, ok := strings.Cut(s, "=")
	if !ok {
		return Publish{}, fmt.Errorf("publish %q: want ADDRESS:PORT=PORT, such as 127.0.0.1:8080=80", s)
	}
	port, err := parsePort(to)
	if err != nil {
		return Publish{}, fmt.Errorf("publish %q: %w", s, err)
	}
	if fd, ok := strings.CutPrefix(from, "fd:"); ok {
		n, err := strconv.Atoi(fd)
		if err != nil || n < 3 {
			return Publish{}, fmt.Errorf("publish %q: %q is not a descriptor from 3 on", s, fd)
		}
		return Publish{File: n, Port: port}, nil
	}
	if _, err := netip.ParseAddrPort(from); err != nil {
		return Publish{}, fmt.Errorf("publish %q: %w", s, err)
	}
	return Publish{Address: from, Port: port}, nil
}

func parsePort(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("port %q is not a number from 1 to 65535", s)
	}
	return uint16(n), nil
}

// Validate returns everything that is wrong.
func (c Config) Validate() error {
	var errs []error
	if c.ID.IsZero() {
		errs = append(errs, errors.New("sidecar: no service named; say --service NAME"))
	}
	if c.Pod != nil {
		return errors.Join(append(errs, c.validatePod())...)
	}
	if c.Socket == "" && c.Address == "" {
		errs = append(errs, errors.New("sidecar: no control plane named; say --control-plane unix:PATH or HOST:PORT"))
	}
	for _, p := range c.Ports {
		if p.Local != p.Number && c.Capture != capture.Explicit {
			errs = append(errs, fmt.Errorf("sidecar: --port %d=%d is for --capture explicit; in %s a program has its ports to itself", p.Number, p.Local, c.Capture))
		}
	}
	if c.Capture != capture.Explicit && len(c.Upstreams) > 0 {
		errs = append(errs, fmt.Errorf("sidecar: --upstream is for --capture explicit; in %s services are reached by their names", c.Capture))
	}
	return errors.Join(errs...)
}

// path is a file in the run directory.
func (c Config) path(name string) string { return filepath.Join(c.RunDir, name) }

// Sockets in the run directory.
const (
	envoySocket    = "envoy/agent.sock"
	adminSocket    = "envoy/admin.sock"
	bootstrapFile  = "envoy/bootstrap.json"
	workloadSocket = "app/workload.sock"
	statusSocket   = "status.sock"
)

// makeDirs makes the run directory: its parts belong to Envoy and to the application.
func (c Config) makeDirs(proxyUID, appUID int) error {
	if c.Pod != nil {
		return c.makePodDirs()
	}
	for _, d := range []struct {
		path string
		mode os.FileMode
		uid  int
	}{{c.RunDir, 0o711, -1}, {c.path("envoy"), 0o700, proxyUID}, {c.path("app"), 0o711, appUID}} {
		if err := os.MkdirAll(d.path, d.mode); err != nil {
			return fmt.Errorf("make the run directory: %w", err)
		}
		if err := os.Chmod(d.path, d.mode); err != nil {
			return fmt.Errorf("make the run directory: %w", err)
		}
		if err := os.Chown(d.path, d.uid, -1); err != nil {
			return fmt.Errorf("make the run directory: %w", err)
		}
	}
	return nil
}
