package bench

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/heddle-mesh/heddle/install/parts/partstest"
)

// realMesh is a whole mesh that "heddle up" runs in network namespaces, in namespaces of
// the machine of its own.
type realMesh struct {
	b                  *testing.B
	dir, heddle, envoy string
}

// startMesh starts a mesh of the services in yaml, in which BENCH is this binary, and of
// objects. The end of the benchmark ends it.
func startMesh(b *testing.B, yaml, objects string) *realMesh {
	b.Helper()
	if os.Geteuid() != 0 {
		b.Skip("needs root: the direct calls pass the capture rules as the proxy's user")
	}
	dir, err := os.MkdirTemp("", "bench") // short: paths of sockets end at 107 bytes
	if err != nil {
		b.Fatal(err)
	}
	m := &realMesh{b: b, dir: dir, heddle: filepath.Join(dir, "bin", "heddle"), envoy: filepath.Join(dir, "bin", "envoy")}
	b.Cleanup(func() { os.RemoveAll(dir) })
	m.build()
	for path, text := range map[string]string{"heddle.yaml": "name: b\nobjects: mesh\n" + strings.ReplaceAll(yaml, "BENCH", self(b)), "mesh/all.yaml": objects} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, path)), 0o711); err != nil {
			b.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, path), []byte(text), 0o600); err != nil {
			b.Fatal(err)
		}
	}
	b.Cleanup(func() {
		if out, err := m.command(m.heddle, "down", "-p", "b").CombinedOutput(); err != nil {
			b.Errorf("heddle down: %v\n%s", err, out)
		}
	})
	up := m.command(filepath.Join(dir, "bin", "app"), "isolate", m.heddle, "up", "-f", filepath.Join(dir, "heddle.yaml"),
		"--detach", "--wait", "--timeout", "60s", "--capture", "transparent")
	if out, err := up.CombinedOutput(); err != nil {
		b.Fatalf("heddle up: %v\n%s", err, out)
	}
	return m
}

// build puts the programs where Envoy's user can read them.
func (m *realMesh) build() {
	m.b.Helper()
	bin := filepath.Dir(m.heddle)
	envoy := partstest.Envoy(m.b)
	for _, step := range []*exec.Cmd{
		exec.Command("mkdir", "-m", "755", bin),
		exec.Command("chmod", "711", m.dir),
		exec.Command("go", "build", "-trimpath", "-o", bin+"/", "../../cmd/heddle", "../e2e/app"),
		exec.Command("install", "-m", "755", envoy, m.envoy),
	} {
		step.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := step.CombinedOutput(); err != nil {
			m.b.Fatalf("%s: %v\n%s", step.Args, err, out)
		}
	}
}

// command makes a command with the mesh's environment, and no other.
func (m *realMesh) command(program string, args ...string) *exec.Cmd {
	cmd := exec.Command(program, args...)
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + m.dir, "XDG_STATE_HOME=" + m.dir + "/s", "XDG_CACHE_HOME=" + m.dir + "/c",
		"HEDDLE_ENVOY=" + m.envoy,
	}
	cmd.Dir = m.dir
	return cmd
}

// PIDs lists the processes of the mesh by name.
func (m *realMesh) PIDs() map[string]int {
	m.b.Helper()
	cmd := m.command(m.heddle, "ps", "-o", "json")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	text, err := cmd.Output()
	if err != nil {
		m.b.Fatalf("heddle ps: %v\n%s", err, stderr.String())
	}
	var list struct {
		Items []struct {
			Name string
			PID  int
		}
	}
	if err := json.Unmarshal(text, &list); err != nil {
		m.b.Fatal(err)
	}
	pids := map[string]int{}
	for _, p := range list.Items {
		pids[p.Name] = p.PID
	}
	return pids
}

// Load runs a load in the namespaces of a workload, and gives what processes used of the
// processor while it ran. It enters them by itself: what "heddle exec" starts cannot become
// the proxy's user.
func (m *realMesh) Load(b *testing.B, workload string, pids []int, args ...string) (result loadResult, cpu float64) {
	b.Helper()
	enter := []string{"-t", strconv.Itoa(m.PIDs()[workload+"/app"]), "--net", "--mount", self(b), "load"}
	return runLoad(b, m.command("nsenter", append(enter, args...)...), pids)
}
