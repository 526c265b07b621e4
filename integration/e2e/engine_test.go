package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	shopimages "github.com/heddle-mesh/heddle/install/examples/shop/images"
	"github.com/heddle-mesh/heddle/install/image"
	"github.com/heddle-mesh/heddle/install/parts/partstest"
)

// engine runs containers without a container engine.
type engine struct {
	t       *testing.T
	group   sync.WaitGroup
	dir     string
	file    composeFile
	app     string
	network string // path of the network namespace
	images  map[string]unpacked
	ctx     context.Context
	ended   map[string]chan struct{}
}

// unpacked is an image's file system and what of its configuration counts.
type unpacked struct {
	root   string
	Config struct {
		User            string
		Env, Entrypoint []string
	}
}

func newEngine(t *testing.T) *engine {
	programs := build(t)
	e := &engine{t: t, dir: t.TempDir(), file: readCompose(t), app: programs.app, images: map[string]unpacked{}, ended: map[string]chan struct{}{}}
	if err := os.Chmod(e.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(e.dir, "bin")
	cmd := exec.Command("go", "build", "-o", bin+"/", "../../cmd/heddle", "../../install/examples/shop/...")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the example: %v\n%s", err, out)
	}
	all, err := shopimages.All(t.Context(), bin, t.Output())
	if err != nil {
		t.Fatal(err)
	}
	if all["heddle"], err = image.Heddle("heddle.local/heddle:dev", filepath.Join(bin, "heddle"), partstest.Envoy(t)); err != nil {
		t.Fatal(err)
	}
	for name, i := range all {
		e.images[i.Name] = e.unpack(name, i)
	}
	var stop context.CancelFunc
	e.ctx, stop = context.WithCancel(context.WithoutCancel(t.Context()))
	t.Cleanup(func() {
		stop()
		e.group.Wait()
	})
	e.network = e.makeNetwork()
	for name := range e.file.Services {
		e.ended[name] = make(chan struct{})
	}
	return e
}

// makeNetwork makes a network that lives as long as the test.
func (e *engine) makeNetwork() string {
	cmd := exec.CommandContext(e.ctx, e.app, "isolate", e.app, "links")
	in, err := cmd.StdinPipe()
	if err != nil {
		e.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		e.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() { in.Close(); cmd.Wait() })
	fmt.Fprintln(in)
	if _, err := out.Read(make([]byte, 1)); err != nil { // it is in its namespace
		e.t.Fatal(err)
	}
	return fmt.Sprintf("/proc/%d/ns/net", cmd.Process.Pid)
}

// unpack unpacks an archive as an engine does.
func (e *engine) unpack(name string, i image.Image) unpacked {
	dir := filepath.Join(e.dir, "images", name)
	u := unpacked{root: filepath.Join(dir, "root")}
	if err := os.MkdirAll(u.root, 0o755); err != nil {
		e.t.Fatal(err)
	}
	archive := filepath.Join(dir, "image.tar")
	if err := image.WriteFile(archive, i); err != nil {
		e.t.Fatal(err)
	}
	untar := func(file, to string) {
		if out, err := exec.Command("tar", "-x", "-p", "-f", file, "-C", to).CombinedOutput(); err != nil {
			e.t.Fatalf("unpack %s: %v: %s", file, err, out)
		}
	}
	untar(archive, dir)
	var manifest []struct {
		Config string
		Layers []string
	}
	read := func(file string, into any) {
		data, err := os.ReadFile(filepath.Join(dir, file))
		if err == nil {
			err = json.Unmarshal(data, into)
		}
		if err != nil {
			e.t.Fatal(err)
		}
	}
	read("manifest.json", &manifest)
	read(manifest[0].Config, &u)
	untar(filepath.Join(dir, manifest[0].Layers[0]), u.root)
	return u
}

// start runs a container when those that it depends on are there, again and again if it
// says so, until the engine's context is done.
func (e *engine) start(name string) {
	s := e.file.Services[name]
	script, env := e.container(name, s)
	log, err := os.Create(filepath.Join(e.dir, name+".log"))
	if err != nil {
		e.t.Fatal(err)
	}
	e.group.Go(func() {
		defer func() {
			log.Close()
			if text, _ := os.ReadFile(log.Name()); e.t.Failed() {
				e.t.Logf("%s said:\n%.3000s", name, text)
			}
			close(e.ended[name])
		}()
		for on, condition := range s.DependsOn {
			if condition == "service_completed_successfully" {
				select {
				case <-e.ended[on]:
				case <-e.ctx.Done():
				}
			}
		}
		for e.ctx.Err() == nil {
			cmd := exec.CommandContext(e.ctx, "nsenter", "--net="+e.network, "unshare", "--mount", "sh", "-ec", script)
			cmd.Env, cmd.Stdout, cmd.Stderr, cmd.WaitDelay = env, log, log, 30*time.Second
			cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
			err := cmd.Run()
			if err == nil && s.Restart == "on-failure" {
				return
			}
			fmt.Fprintln(log, "container ended:", err)
			select { // as an engine does, not at once
			case <-time.After(200 * time.Millisecond):
			case <-e.ctx.Done():
			}
		}
	})
}

// await asks in the containers' network until the answer is 200 and has the text.
func (e *engine) await(url, text string) {
	e.t.Helper()
	await(e.t, 90*time.Second, url+" with "+text, func() error {
		ctx, cancel := context.WithTimeout(e.ctx, 20*time.Second)
		defer cancel()
		out, err := exec.CommandContext(ctx, "nsenter", "--net="+e.network, e.app, "get", url).Output()
		if err != nil {
			return err
		}
		var a struct {
			Code        int
			Body, Error string
		}
		if err := json.Unmarshal(out, &a); err != nil {
			return err
		}
		if a.Code != 200 || !strings.Contains(a.Body, text) {
			return fmt.Errorf("%d %s %.200s", a.Code, a.Error, a.Body)
		}
		return nil
	})
}
