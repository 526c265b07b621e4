package e2e

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestInherited looks whether a program has sockets that are nobody's business but the
// supervisor's. Several published ports give it many to pass on by mistake.
func TestInherited(t *testing.T) {
	inModes(t, func(t *testing.T, mode string) {
		var publish []string
		for range 6 {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			publish = append(publish, fmt.Sprintf("%q", l.Addr().String()+":8080"))
			l.Close()
		}
		p := start(t, mode, fmt.Sprintf(`
services:
  web: {ports: [8080], publish: [%s], command: [APP, serve, --http, ":8080"]}
  quiet: {after: [web], command: [sh, -c, "while :; do sleep 1; done"]}
`, strings.Join(publish, ", ")), nil)
		q, err := p.Process("quiet-0/app")
		if err != nil {
			t.Fatal(err)
		}
		links, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", q.PID))
		if err != nil || len(links) < 3 {
			t.Fatalf("open files of %+v: %v, %v", q, links, err)
		}
		for _, link := range links {
			if to, err := os.Readlink(link); err == nil && strings.HasPrefix(to, "socket:") {
				t.Errorf("the program has %s, %s", link, to)
			}
		}
	})
}
