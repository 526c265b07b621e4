// Package pod tests the sidecar of a Kubernetes pod, without Kubernetes: the heddle binary
// with real Envoys in network namespaces that stand for pods, as the user and with the
// rights that the containers of a pod have, and a control plane whose objects another
// engine keeps. The application of a pod is this process, by sockets inside its namespace.
package pod

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/heddle-mesh/heddle/install/parts/partstest"
	"github.com/heddle-mesh/heddle/proxy/capture"
)

// insideEnv says that we are inside the sandbox: network and mount namespaces of our own.
const insideEnv = "HEDDLE_POD_TEST_INSIDE"

func TestMain(m *testing.M) {
	if capture.IsChild(os.Args) {
		os.Exit(capture.Main(os.Args[2:]))
	}
	code := m.Run()
	if built.dir != "" {
		os.RemoveAll(built.dir)
	}
	os.Exit(code)
}

// inSandbox runs a test in a network of its own, which goes with it.
func inSandbox(t *testing.T, test func(t *testing.T)) {
	if testing.Short() {
		t.Skip("runs whole meshes")
	}
	if os.Geteuid() != 0 || !capture.MachineRoot() {
		t.Skip("a pod's namespaces and users need root")
	}
	if os.Getenv(insideEnv) != "" {
		enterSandbox(t)
		test(t)
		return
	}
	heddle, envoy := programs(t)
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=5m")
	cmd.Env = append(os.Environ(), insideEnv+"=1", "HEDDLE_POD_TEST_HEDDLE="+heddle, "HEDDLE_ENVOY="+envoy)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS, Pdeathsig: unix.SIGKILL}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	if text := strings.TrimSpace(out.String()); err != nil {
		t.Fatalf("%v\n%s", err, text)
	} else if testing.Verbose() {
		t.Log(text)
	}
}

func enterSandbox(t *testing.T) {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// built are the programs under test, where any user can run them.
var built struct {
	once          sync.Once
	dir           string
	heddle, envoy string
	err           error
}

// programs makes the programs, once.
func programs(t *testing.T) (heddle, envoy string) {
	t.Helper()
	built.once.Do(func() {
		source := partstest.Envoy(t)
		if built.dir, built.err = os.MkdirTemp("", "pod-test"); built.err != nil {
			return
		}
		built.heddle, built.envoy = filepath.Join(built.dir, "heddle"), filepath.Join(built.dir, "envoy")
		cmd := exec.Command("go", "build", "-o", built.heddle, "../../cmd/heddle")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			built.err = fmt.Errorf("build: %w\n%s", err, out)
			return
		}
		built.err = errors.Join(os.Chmod(built.dir, 0o711), copyProgram(built.envoy, source))
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	return built.heddle, built.envoy
}

func copyProgram(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		out.Close()
		return err
	}
	return out.Close()
}

// await asks again and again until the condition holds, and says at the end why not.
func await(t *testing.T, what string, condition func() error) {
	t.Helper()
	deadline, tick := time.After(30*time.Second), time.NewTicker(20*time.Millisecond)
	defer tick.Stop()
	for {
		err := condition()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not within 30 seconds: %s: %v", what, err)
		}
	}
}

// want is an error unless got is what is wanted.
func want[T comparable](got, want T) error {
	if got != want {
		return fmt.Errorf("%v, want %v", got, want)
	}
	return nil
}
