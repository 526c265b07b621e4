package local

import (
	"context"
	"net"
	"net/http"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/heddle-mesh/heddle/install/parts"
	"github.com/heddle-mesh/heddle/proxy/capture"
	"github.com/heddle-mesh/heddle/proxy/supervise"
	"github.com/heddle-mesh/heddle/telemetry/tracing"
)

// jaeger runs Jaeger as soon as its program is in the cache. Its first build takes
// minutes; Launch does that beside the mesh, which does not wait.
func (s *supervisor) jaeger(ctx context.Context) {
	program, ok := parts.JaegerCached()
	for !ok {
		select {
		case <-time.After(2 * time.Second):
		case <-ctx.Done():
			return
		}
		program, ok = parts.JaegerCached()
	}
	config, err := tracing.DefaultJaeger().YAML()
	if err == nil {
		err = os.WriteFile(s.Project.path("jaeger.yaml"), config, 0o600)
	}
	if err != nil {
		s.Log.Error("configure Jaeger", "error", err)
		return
	}
	out := s.output("jaeger")
	err = s.launch(ctx, &managed{kind: "jaeger"}, supervise.Spec{
		Name: "jaeger", Restart: supervise.OnFailure,
		Start: func(context.Context) (*exec.Cmd, error) {
			cmd := exec.Command(program, "--config", s.Project.path("jaeger.yaml"))
			cmd.Stdout, cmd.Stderr = out, out
			cmd.ExtraFiles = []*os.File{s.lock}                                // a new run waits for its end
			cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM} // it has no lifeline
			return cmd, nil
		},
		Ready: func(ctx context.Context) error {
			req, err := newRequest(ctx, "GET", "/api/services", nil)
			if err != nil {
				return err
			}
			req.URL.Host = jaegerAddress
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				return err
			}
			return resp.Body.Close()
		},
	})
	if err != nil {
		return // everything ends
	}
	if f := s.Files[jaegerAddress]; f != nil { // in a user namespace: show it to the outside
		s.forward(ctx, f, jaegerAddress)
	}
}

func (s *supervisor) forward(ctx context.Context, f *os.File, to string) {
	l, err := net.FileListener(f)
	if err != nil {
		s.Log.Error("publish", "address", to, "error", err)
		return
	}
	err = capture.Forward(ctx, l, func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", to)
	})
	if err != nil && ctx.Err() == nil {
		s.Log.Error("publish", "address", to, "error", err)
	}
}
