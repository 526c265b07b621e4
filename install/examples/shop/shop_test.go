package shop_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/heddle-mesh/heddle/install/parts"
)

// nobody runs what refuses to run as root.
const nobody = 65534

// TestShop runs the real programs, nginx and PostgreSQL included, without a mesh, and
// kills the database under the API.
func TestShop(t *testing.T) {
	if testing.Short() {
		t.Skip("runs nginx and PostgreSQL")
	}
	s := newShop(t)
	dbPort, apiPort, webPort := freePort(t), freePort(t), freePort(t)
	data := s.dir("db")
	startDB := func() *exec.Cmd {
		return s.start("db", "--postgres", s.part(parts.Postgres), "--dir", data, "--port", dbPort)
	}
	db := startDB()
	s.start("api", "--listen", "127.0.0.1:"+apiPort, "--version", "v2", "--database", "postgres://shop@127.0.0.1:"+dbPort+"/shop")
	s.start("frontend", "--nginx", s.part(parts.Nginx), "--dir", s.dir("web"), "--port", webPort, "--api", "127.0.0.1:"+apiPort)
	web := "http://127.0.0.1:" + webPort
	s.await(web+"/healthz", "ok")
	s.await(web+"/", "Heddle")
	s.await(web+"/api/version", "v2")
	s.await(web+"/api/", `"id"`)
	s.await(web+"/api/documents/linen", "Washed linen")

	put, err := http.NewRequestWithContext(t.Context(), "PUT", web+"/api/documents/felt", strings.NewReader(`{"name": "Wool felt"}`))
	if err != nil {
		t.Fatal(err)
	}
	if got := do(put); got != "200 {\"id\": \"felt\", \"name\": \"Wool felt\"}\n" {
		t.Errorf("PUT: %s", got)
	}
	kill(t, db)
	startDB()
	// One question, and it is answered: the API waits while the database recovers.
	if got := get(t.Context(), web+"/api/documents/felt"); !strings.HasPrefix(got, "200 ") || !strings.Contains(got, "Wool felt") {
		t.Errorf("after the database's end: %s", got)
	}
	for _, want := range []string{"204 ", "404 {\"error\":\"there is no such document\"}\n"} {
		remove, err := http.NewRequestWithContext(t.Context(), "DELETE", web+"/api/documents/felt", nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := do(remove); got != want {
			t.Errorf("DELETE: %q, want %q", got, want)
		}
	}
	s.await("http://127.0.0.1:"+apiPort+"/readyz", "ok")
}

// shop is the built programs and a folder that nobody may enter.
type shop struct {
	t    *testing.T
	root string
}

func newShop(t *testing.T) *shop {
	s := &shop{t, t.TempDir()}
	build := exec.CommandContext(t.Context(), "go", "build", "-o", filepath.Join(s.root, "bin")+"/", "./...")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the shop: %v\n%s", err, out)
	}
	for dir := s.root; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			break // not ours
		}
	}
	return s
}

func (s *shop) part(p parts.Part) string {
	dir, err := parts.Ensure(s.t.Context(), p, os.Stderr)
	if err != nil {
		s.t.Fatal(err)
	}
	return dir
}

// dir makes a folder for a program's data.
func (s *shop) dir(name string) string {
	dir := filepath.Join(s.root, name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		s.t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(dir, nobody, nobody); err != nil {
			s.t.Fatal(err)
		}
	}
	return dir
}

// start starts a program, as nobody where we are root. It ends with the test, which shows
// its output if it failed.
func (s *shop) start(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(s.root, "bin", name), args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = &out, &out, 5*time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if os.Geteuid() == 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: nobody, Gid: nobody}
	}
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		if cmd.ProcessState == nil {
			_ = cmd.Process.Signal(syscall.SIGTERM)
			_ = cmd.Wait()
		}
		if s.t.Failed() {
			s.t.Logf("%s said:\n%s", name, out.String())
		}
	})
	return cmd
}

func kill(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
}

// await asks until the answer is 200 and has the text.
func (s *shop) await(url, text string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 30*time.Second)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		got := get(ctx, url)
		if strings.HasPrefix(got, "200 ") && strings.Contains(got, text) {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			s.t.Fatalf("%s: %s, want %q", url, got, text)
		}
	}
}

func get(ctx context.Context, url string) string {
	req, err := http.NewRequestWithContext(ctx, "GET", url, nil)
	if err != nil {
		return err.Error()
	}
	return do(req)
}

func do(req *http.Request) string {
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%d %s", resp.StatusCode, body)
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}
