// Package e2e tests whole meshes: the heddle binary with real Envoys and programs that know
// nothing of it, as root with network namespaces, and as a plain user in a user namespace.
//
// Every test starts a mesh with "heddle up", looks at it from inside a workload with
// "heddle exec", and checks that "heddle down" leaves nothing. As root each mesh has
// network and mount namespaces of its own around it, so that neither a mesh of the
// machine's user nor tests of other packages meet it.
package e2e

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/heddle-mesh/heddle/install/parts/partstest"
	"github.com/heddle-mesh/heddle/proxy/capture"
)

// plainUser runs the rootless meshes where the tests run as root.
const plainUser = 65534

// root is where everything that this run makes lies; any user can pass through it.
var root string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	var err error
	if root, err = os.MkdirTemp("", "e2e"); err != nil { // short: paths of sockets end at 107 bytes
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(root)
	if err := os.Chmod(root, 0o711); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// programs are the binaries under test, in a folder that any user can read.
type programs struct {
	heddle, app, envoy string
	err                error
}

var built struct {
	once sync.Once
	programs
}

// build makes the programs, once.
func build(t *testing.T) programs {
	t.Helper()
	built.once.Do(func() {
		bin := filepath.Join(root, "bin")
		p := programs{heddle: filepath.Join(bin, "heddle"), app: filepath.Join(bin, "app"), envoy: filepath.Join(bin, "envoy")}
		source := partstest.Envoy(t)
		cmd := exec.Command("go", "build", "-o", bin+"/", "../../cmd/heddle", "./app")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if p.err = os.Mkdir(bin, 0o755); p.err == nil {
			if out, err := cmd.CombinedOutput(); err != nil {
				p.err = fmt.Errorf("build: %w\n%s", err, out)
			}
		}
		if p.err == nil {
			p.err = copyFile(p.envoy, source)
		}
		built.programs = p
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	return built.programs
}

// copyFile copies a program out of a folder that only its owner may enter.
func copyFile(to, from string) error {
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

// The capture modes under test, as "heddle up --capture" names them.
const (
	transparent = "transparent"
	rootless    = "rootless"
	explicit    = "explicit"
	// explicitPlain is explicit for a plain user where the tests run as root.
	explicitPlain = "explicit plain"
)

// inModes runs a test in each mode that we may use.
func inModes(t *testing.T, test func(t *testing.T, mode string)) {
	needMesh(t)
	for _, mode := range []string{transparent, rootless} {
		t.Run(mode, func(t *testing.T) {
			if mode == transparent && !capture.MachineRoot() {
				t.Skip("only root may capture transparently; the same test runs as rootless")
			}
			test(t, mode)
		})
	}
}

// inBestMode runs a test that takes long in one mode: as root transparent, else rootless.
func inBestMode(t *testing.T, test func(t *testing.T, mode string)) {
	needMesh(t)
	mode := rootless
	if capture.MachineRoot() {
		mode = transparent
	}
	t.Run(mode, func(t *testing.T) { test(t, mode) })
}

func needMesh(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("runs whole meshes")
	}
}

// isolated reports whether a mesh of that mode gets network and mount namespaces of its
// own around it.
func isolated(mode string) bool { return mode != rootless && capture.MachineRoot() }

// credential is whom a mesh of that mode runs as; nil for ourselves.
func credential(mode string) *syscall.Credential {
	if (mode == rootless || mode == explicitPlain) && capture.MachineRoot() {
		return &syscall.Credential{Uid: plainUser, Gid: plainUser}
	}
	return nil
}
