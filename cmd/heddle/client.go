package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/heddle-mesh/heddle/discovery/api"
	"github.com/heddle-mesh/heddle/discovery/api/apipb"
	identityv1 "github.com/heddle-mesh/heddle/identity/api"
	"github.com/heddle-mesh/heddle/identity/attest"
)

const (
	controlPlaneEnv    = "HEDDLE_CONTROL_PLANE"
	controlPlaneSocket = "controlplane.sock"
	// callTimeout bounds a call that only reads or writes the control plane's memory.
	callTimeout = 15 * time.Second
	// maxReply is the largest reply: the whole configuration of a proxy in a mesh of
	// thousands of services.
	maxReply = 256 << 20
)

// exitCodesHelp ends the help of the commands that talk to the control plane.
const exitCodesHelp = "\n\nExit codes: 0 done, 1 it did not succeed, 2 the command was not understood."

// clientFlags are the flags of every command that talks to the control plane.
type clientFlags struct {
	controlPlane string
	namespace    string
	output       string
}

// add gives c the common flags; formats are the values that --output takes.
func (f *clientFlags) add(c *cobra.Command, formats ...string) {
	c.Long = strings.TrimSuffix(c.Long, "\n") + exitCodesHelp
	fs := c.Flags()
	fs.StringVar(&f.controlPlane, "control-plane", "", "the control plane's Unix socket, or kubernetes[:CONTEXT] for that of kubectl's cluster (default $"+controlPlaneEnv+", else that of the running 'heddle up')")
	fs.StringVarP(&f.namespace, "namespace", "n", "default", "namespace")
	if len(formats) > 0 {
		fs.StringVarP(&f.output, "output", "o", "", "output format: "+strings.Join(formats, ", ")+" (default a table)")
		must(c.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(formats, cobra.ShellCompDirectiveNoFileComp)))
		check := c.PreRunE
		c.PreRunE = func(c *cobra.Command, args []string) error {
			if f.output != "" && !contains(formats, f.output) {
				return usagef("--output %q: it is one of %s", f.output, strings.Join(formats, ", "))
			}
			if check != nil {
				return check(c, args)
			}
			return nil
		}
	}
}

// must is for what can only go wrong by a mistake in this program.
func must(err error) {
	if err != nil {
		panic(err)
	}
}

func contains(list []string, s string) bool {
	for _, one := range list {
		if one == s {
			return true
		}
	}
	return false
}

// usagef is an error in how the command was written.
func usagef(format string, args ...any) error {
	return &exitError{exitUsage, fmt.Errorf(format, args...)}
}

// args makes a wrong number of arguments an error of usage.
func args(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(c *cobra.Command, given []string) error {
		if err := check(c, given); err != nil {
			return usagef("%w\nUsage: %s", err, c.UseLine())
		}
		return nil
	}
}

// client is a connection to the control plane.
type client struct {
	conns  []*grpc.ClientConn // of its replicas; one but for Kubernetes
	socket string
	// elsewhere is set where another engine keeps the objects: writes have no revision.
	elsewhere bool

	objects  apipb.ObjectsClient
	mesh     apipb.MeshClient
	identity identityv1.IdentityClient
}

func (c *client) close() {
	for _, conn := range c.conns {
		_ = conn.Close()
	}
}

// dial finds the control plane and connects to it.
func (f *clientFlags) dial(ctx context.Context) (*client, error) {
	if k, ok := f.onCluster(); ok {
		return dialCluster(ctx, k)
	}
	socket, err := f.socket(ctx)
	if err != nil {
		return nil, err
	}
	if socket, err = filepath.Abs(socket); err != nil {
		return nil, err
	}
	conn, err := grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(attest.UnixCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxReply), grpc.MaxCallSendMsgSize(api.MaxMessage)))
	if err != nil {
		return nil, fmt.Errorf("connect to the control plane: %w", err)
	}
	return &client{
		conns: []*grpc.ClientConn{conn}, socket: socket,
		objects: apipb.NewObjectsClient(conn), mesh: apipb.NewMeshClient(conn), identity: identityv1.NewIdentityClient(conn),
	}, nil
}

// onCluster reports whether the control plane is on Kubernetes, by flag, by environment, or
// because we are kubectl's plugin.
func (f *clientFlags) onCluster() (kubectl, bool) {
	if named := cmp.Or(f.controlPlane, os.Getenv(controlPlaneEnv)); named != "" {
		return isKubernetes(named)
	}
	return kubectl{}, asPlugin()
}

// socket is the path of the control plane's socket: by flag, by environment, or the one
// living socket of this user's projects.
func (f *clientFlags) socket(ctx context.Context) (string, error) {
	for _, given := range []string{f.controlPlane, os.Getenv(controlPlaneEnv)} {
		if given == "" {
			continue
		}
		path := strings.TrimPrefix(given, "unix:")
		if _, _, err := net.SplitHostPort(path); err == nil && !strings.Contains(path, "/") {
			return "", usagef("control plane %q: commands go through its Unix socket, on its own machine; give that path", given)
		}
		return path, nil
	}
	found := livingSockets(ctx, stateHome())
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return "", fmt.Errorf("no control plane is running under %s; start one with 'heddle up', or say where it is with --control-plane PATH (kubernetes for the cluster that kubectl knows) or %s", stateHome(), controlPlaneEnv)
	}
	return "", usagef("several control planes are running; choose one with --control-plane:\n  %s", strings.Join(found, "\n  "))
}

// livingSockets lists the control planes' sockets under dir that take connections:
// those of 'heddle up', and that of a 'heddle controlplane' with its default folder.
func livingSockets(ctx context.Context, dir string) []string {
	var out []string
	for _, pattern := range []string{filepath.Join("projects", "*", controlPlaneSocket), filepath.Join("controlplane", controlPlaneSocket)} {
		paths, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			continue // the folder's own name is a bad pattern
		}
		for _, path := range paths {
			if conn, err := new(net.Dialer).DialContext(ctx, "unix", path); err == nil {
				conn.Close()
				out = append(out, path)
			}
		}
	}
	return out
}

// explain makes an error of a call one for people.
func (c *client) explain(err error) error {
	if err == nil {
		return nil
	}
	s := status.Convert(err)
	switch s.Code() {
	case codes.Unavailable:
		return fmt.Errorf("the control plane at %s does not answer; see whether it runs ('heddle ps'), or name another with --control-plane (%s)", c.socket, s.Message())
	case codes.DeadlineExceeded:
		return fmt.Errorf("the control plane at %s did not answer in time", c.socket)
	case codes.Canceled:
		return errors.New("interrupted")
	case codes.Unimplemented:
		return fmt.Errorf("the control plane at %s is of another version than this command: %s", c.socket, s.Message())
	}
	return errors.New(s.Message())
}

// run dials, runs f with a context that bounds short calls, and explains its error.
func (f *clientFlags) run(c *cobra.Command, do func(ctx context.Context, cl *client) error) error {
	cl, err := f.dial(c.Context())
	if err != nil {
		return err
	}
	defer cl.close()
	err = do(c.Context(), cl)
	if _, isStatus := status.FromError(err); err != nil && isStatus {
		return cl.explain(err)
	}
	return err
}
