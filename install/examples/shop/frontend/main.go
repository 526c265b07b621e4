// Command frontend runs the example shop's web server, a real nginx that serves a page and
// passes /api/ on to the API. It writes nginx's configuration and becomes nginx.
package main

import (
	"context"
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"text/template"
	"time"

	"github.com/heddle-mesh/heddle/install/parts"
)

//go:embed nginx.conf.tmpl
var configuration string

//go:embed index.html
var page []byte

// site is what the configuration's template needs.
type site struct {
	Dir    string // nginx's own files
	Listen []string
	Port   uint
	Public uint   // another port for callers from outside of the mesh; 0 = none
	API    string // HOST:PORT
	Root   bool   // nginx would change its user
}

func main() {
	part := flag.String("nginx", "", "`DIR` of the part nginx; empty means the cache")
	var s site
	flag.StringVar(&s.Dir, "dir", "", "`DIR` for nginx's files")
	listen := flag.String("listen", "127.0.0.1", "`ADDRESSES` to serve at, with commas; in a pod 0.0.0.0,[::]")
	flag.UintVar(&s.Port, "port", 8080, "port to serve at")
	flag.UintVar(&s.Public, "public", 0, "another `PORT` to serve at, for callers from outside of the mesh")
	flag.StringVar(&s.API, "api", "api:80", "`HOST:PORT` of the API")
	flag.Parse()
	s.Root, s.Listen = os.Geteuid() == 0, strings.Split(*listen, ",")
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	fmt.Fprintln(os.Stderr, "frontend:", run(ctx, *part, s))
	os.Exit(1)
}

// run returns only if this process did not become nginx.
func run(ctx context.Context, part string, s site) (err error) {
	if s.Dir == "" {
		return errors.New("no directory for nginx's files; say --dir DIR")
	}
	if part == "" {
		if part, err = parts.Ensure(ctx, parts.Nginx, os.Stderr); err != nil {
			return err
		}
	}
	config, err := s.write()
	if err != nil {
		return err
	}
	if err := resolves(ctx, s.API); err != nil {
		return err
	}
	program := parts.Nginx.Program(part, "nginx")
	if err := syscall.Exec(program, []string{"nginx", "-e", "stderr", "-p", s.Dir, "-c", config}, os.Environ()); err != nil {
		return fmt.Errorf("execute %s: %w", program, err)
	}
	return nil
}

// resolves waits until the name of HOST:PORT has an address: nginx looks it up once, and
// ends if there is none. A service keeps its address, so once is enough.
func resolves(ctx context.Context, address string) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("the API's address: %w", err)
	}
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for told := false; ; {
		_, err := net.DefaultResolver.LookupHost(ctx, host)
		if err == nil {
			return nil
		}
		if !told {
			fmt.Fprintf(os.Stderr, "frontend: waiting for a name: %v\n", err)
			told = true
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("wait for the API's name: %w", err)
		}
	}
}

// write writes nginx's files and returns the path of its configuration.
func (s *site) write() (config string, err error) {
	if s.Dir, err = filepath.Abs(s.Dir); err != nil {
		return "", err
	}
	if err := os.MkdirAll(filepath.Join(s.Dir, "html"), 0o700); err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(s.Dir, "html", "index.html"), page, 0o600); err != nil {
		return "", err
	}
	var text strings.Builder
	if err := s.render(&text); err != nil {
		return "", err
	}
	config = filepath.Join(s.Dir, "nginx.conf")
	return config, os.WriteFile(config, []byte(text.String()), 0o600)
}

// render writes the configuration. What goes into it unquoted must be plain.
func (s *site) render(w io.Writer) error {
	if strings.ContainsAny(s.Dir, "\"\\$\n") {
		return fmt.Errorf("nginx cannot have %q as its directory", s.Dir)
	}
	if s.API == "" || strings.ContainsAny(s.API, " \t\n;{}$\"'\\/#") {
		return fmt.Errorf("%q is not a HOST:PORT", s.API)
	}
	for _, address := range s.Listen {
		if _, err := netip.ParseAddr(strings.Trim(address, "[]")); err != nil {
			return fmt.Errorf("address to serve at: %w", err)
		}
	}
	t, err := template.New("nginx.conf").Parse(configuration)
	if err != nil {
		return err
	}
	return t.Execute(w, s)
}
