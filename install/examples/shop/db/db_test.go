package main

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/heddle-mesh/heddle/install/parts"
	"github.com/heddle-mesh/heddle/install/parts/partstest"
)

// nobody runs what refuses to run as root.
const nobody = 65534

// TestMain lets the test's own program be the command, so that it can run as another user.
func TestMain(m *testing.M) {
	if os.Getenv("SHOP_DB") != "" {
		main()
	}
	os.Exit(m.Run())
}

func TestRefusesRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("is not root")
	}
	if code, err := run(t.Context(), "", t.TempDir(), "127.0.0.1", 1); code != 2 || err == nil || !strings.Contains(err.Error(), "does not run as root") {
		t.Errorf("exit code %d, %v", code, err)
	}
}

// TestLife goes through what happens to a database: a first start cut short, its wrong
// callers, an end with clients there, a kill, a second server for the same data.
func TestLife(t *testing.T) {
	if testing.Short() {
		t.Skip("runs PostgreSQL")
	}
	d := newDatabase(t)
	// What an initialisation that was cut short leaves.
	d.mkdir(filepath.Join(d.dir, "data.partial"))
	d.mkdir(filepath.Join(d.dir, "data.partial", "base"))
	server := d.start()
	conn := d.connect("shop", "shop")
	d.exec(conn, `INSERT INTO documents VALUES ('felt', '{"name": "Wool felt"}')`)
	if _, err := os.Stat(filepath.Join(d.dir, "data.partial")); !os.IsNotExist(err) {
		t.Errorf("the unfinished data is there still: %v", err)
	}
	for _, who := range [][2]string{{"postgres", "postgres"}, {"postgres", "shop"}, {"shop", "postgres"}} {
		if c, err := pgx.Connect(t.Context(), d.url(who[0], who[1])); err == nil {
			c.Close(t.Context())
			t.Errorf("user %s got into database %s", who[0], who[1])
		}
	}

	server.Process.Signal(syscall.SIGTERM) // with a client connected
	if err := server.Wait(); err != nil {
		t.Errorf("asked to end: %v", err)
	}
	server = d.start()
	d.count(d.connect("shop", "shop"), 9)

	// PostgreSQL dies with its parent, and a little later: the next one waits for it.
	server.Process.Kill()
	server.Wait()
	server = d.start()
	d.count(d.connect("shop", "shop"), 9)

	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	p := postgres{d.part, filepath.Join(d.dir, "data")}
	if err := p.clearDead(ctx); err == nil || !strings.Contains(err.Error(), "in use by process") {
		t.Errorf("a second server for the same data: %v", err)
	}
	d.count(d.connect("shop", "shop"), 9)
	server.Process.Signal(os.Interrupt)
	server.Wait()
}

// database is a folder, a port and the command.
type database struct {
	t                  *testing.T
	program, part, dir string
	port               int
}

func newDatabase(t *testing.T) *database {
	partstest.Program(t, parts.Postgres, "postgres")
	part, err := parts.Ensure(t.Context(), parts.Postgres, t.Output())
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	root, err := os.MkdirTemp("", "shop-db-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(root) })
	d := &database{t: t, part: part, program: filepath.Join(root, "db"), dir: filepath.Join(root, "state"), port: freePort(t)}
	for _, err := range []error{os.Chmod(root, 0o755), os.WriteFile(d.program, self, 0o755)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	d.mkdir(d.dir)
	return d
}

// mkdir makes a folder of the server's user.
func (d *database) mkdir(dir string) {
	d.t.Helper()
	if err := os.Mkdir(dir, 0o700); err != nil {
		d.t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(dir, nobody, nobody); err != nil {
			d.t.Fatal(err)
		}
	}
}

func (d *database) start() *exec.Cmd {
	d.t.Helper()
	cmd := exec.Command(d.program, "--postgres", d.part, "--dir", d.dir, "--port", strconv.Itoa(d.port))
	cmd.Env = append(os.Environ(), "SHOP_DB=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if os.Geteuid() == 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: nobody, Gid: nobody}
	}
	cmd.Stdout, cmd.Stderr = d.t.Output(), d.t.Output()
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() {
		if cmd.ProcessState == nil {
			cmd.Process.Signal(syscall.SIGTERM)
			cmd.Wait()
		}
	})
	return cmd
}

func (d *database) url(user, name string) string {
	return "postgres://" + user + "@127.0.0.1:" + strconv.Itoa(d.port) + "/" + name + "?sslmode=disable"
}

// connect asks until the server answers.
func (d *database) connect(user, name string) *pgx.Conn {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), 30*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		conn, err := pgx.Connect(ctx, d.url(user, name))
		if err == nil {
			d.t.Cleanup(func() { conn.Close(context.Background()) })
			return conn
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			d.t.Fatal(err)
		}
	}
}

func (d *database) exec(conn *pgx.Conn, sql string) {
	d.t.Helper()
	if _, err := conn.Exec(d.t.Context(), sql); err != nil {
		d.t.Fatal(err)
	}
}

func (d *database) count(conn *pgx.Conn, want int) {
	d.t.Helper()
	var n int
	if err := conn.QueryRow(d.t.Context(), "SELECT count(*) FROM documents").Scan(&n); err != nil || n != want {
		d.t.Errorf("%d documents, %v; want %d", n, err, want)
	}
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}
