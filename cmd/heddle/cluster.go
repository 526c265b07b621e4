package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/heddle-mesh/heddle/discovery/api"
	"github.com/heddle-mesh/heddle/discovery/api/apipb"
	identityv1 "github.com/heddle-mesh/heddle/identity/api"
	"github.com/heddle-mesh/heddle/install/kubernetes"
)

const (
	// onKubernetes is the control plane of the cluster that kubectl knows; a colon and the
	// name of one of its contexts may follow.
	onKubernetes = "kubernetes"
	// podSocket is the control plane's socket in its pod.
	podSocket = "/var/lib/heddle/controlplane.sock"
)

// kubectl runs the user's own kubectl: whatever they may do, and no more, is done.
type kubectl struct{ context string }

// isKubernetes reports whether a control plane is named that is on Kubernetes.
func isKubernetes(name string) (k kubectl, ok bool) {
	name, k.context, _ = strings.Cut(name, ":")
	return k, name == onKubernetes
}

// asPlugin reports whether we are kubectl's plugin: `kubectl heddle` runs kubectl-heddle.
func asPlugin() bool { return strings.HasPrefix(filepath.Base(os.Args[0]), "kubectl-heddle") }

func (k kubectl) command(ctx context.Context, args ...string) *exec.Cmd {
	if k.context != "" {
		args = append([]string{"--context=" + k.context}, args...)
	}
	return exec.CommandContext(ctx, "kubectl", args...)
}

// run runs kubectl to its end. Its own message is the error.
func (k kubectl) run(ctx context.Context, stdin []byte, args ...string) ([]byte, error) {
	cmd := k.command(ctx, args...)
	var out, said bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), &out, &said
	if err := cmd.Run(); err != nil {
		if errors.Is(err, exec.ErrNotFound) {
			return nil, errors.New("the program kubectl is not in the PATH; heddle uses it to reach a cluster")
		}
		return nil, fmt.Errorf("kubectl %s: %s", args[0], strings.TrimSpace(strings.TrimPrefix(said.String(), "error: ")))
	}
	return out.Bytes(), nil
}

// list gives the items of a list as kubectl prints it.
func (k kubectl) list(ctx context.Context, args ...string) ([]json.RawMessage, error) {
	out, err := k.run(ctx, nil, append(args, "-o", "json")...)
	if err != nil {
		return nil, err
	}
	var list struct{ Items []json.RawMessage }
	if err := json.Unmarshal(out, &list); err != nil {
		return nil, fmt.Errorf("read what kubectl %s printed: %w", args[0], err)
	}
	return list.Items, nil
}

// dialCluster connects to every replica of the control plane of a cluster: each knows its
// own proxies.
func dialCluster(ctx context.Context, k kubectl) (*client, error) {
	pods, err := k.list(ctx, "get", "pods", "-n", kubernetes.Namespace, "-l", "app.kubernetes.io/name=heddle-controlplane", "--field-selector=status.phase=Running")
	if err != nil {
		return nil, err
	}
	c := &client{socket: "Kubernetes"}
	replicas := new(replicas)
	for _, raw := range pods {
		var pod struct {
			Metadata struct {
				Name              string
				DeletionTimestamp *time.Time
			}
		}
		if err := json.Unmarshal(raw, &pod); err != nil {
			return nil, err
		}
		if pod.Metadata.DeletionTimestamp != nil {
			continue
		}
		conn, err := k.dialPod(pod.Metadata.Name)
		if err != nil {
			return nil, err
		}
		c.conns = append(c.conns, conn)
		replicas.clients = append(replicas.clients, apipb.NewMeshClient(conn))
		c.identity = identityv1.NewIdentityClient(conn)
	}
	if len(replicas.clients) == 0 {
		return nil, fmt.Errorf("no control plane runs in namespace %s of the cluster; see 'heddle install'", kubernetes.Namespace)
	}
	c.mesh, c.objects, c.elsewhere = replicas, &clusterObjects{kubectl: k}, true
	return c, nil
}

// dialPod speaks gRPC through kubectl exec with the socket in a pod of the control plane:
// it is open to nobody, and who may exec there is the cluster's own rule.
func (k kubectl) dialPod(pod string) (*grpc.ClientConn, error) {
	dial := func(ctx context.Context, _ string) (net.Conn, error) {
		// The connection outlives the context of its dialing.
		cmd := k.command(context.WithoutCancel(ctx), "exec", "-i", "-n", kubernetes.Namespace, pod, "-c", "controlplane", "--",
			"/usr/local/bin/heddle", "connect", podSocket)
		return startPipe(cmd)
	}
	return grpc.NewClient("passthrough:///"+pod, grpc.WithContextDialer(dial), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxReply), grpc.MaxCallSendMsgSize(api.MaxMessage)))
}

// pipeConn is a program's standard input and output as a connection.
type pipeConn struct {
	io.ReadCloser
	in  io.WriteCloser
	cmd *exec.Cmd
}

func startPipe(cmd *exec.Cmd) (net.Conn, error) {
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	cmd.Stderr = io.Discard // kubectl's remarks; what matters fails the call
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return &pipeConn{out, in, cmd}, nil
}

func (p *pipeConn) Write(b []byte) (int, error) { return p.in.Write(b) }

// Close ends the program.
func (p *pipeConn) Close() error {
	err := errors.Join(p.in.Close(), p.cmd.Process.Kill())
	_ = p.cmd.Wait() // killed
	return err
}

func (*pipeConn) LocalAddr() net.Addr              { return pipeAddr{} }
func (*pipeConn) RemoteAddr() net.Addr             { return pipeAddr{} }
func (*pipeConn) SetDeadline(time.Time) error      { return nil } // gRPC ends calls by their contexts
func (*pipeConn) SetReadDeadline(time.Time) error  { return nil }
func (*pipeConn) SetWriteDeadline(time.Time) error { return nil }

type pipeAddr struct{}

func (pipeAddr) Network() string { return "pipe" }
func (pipeAddr) String() string  { return "kubectl exec" }

// connectCommand joins standard input and output to a socket: the other end of dialPod.
func connectCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use: "connect SOCKET", Short: "Join standard input and output to a Unix socket", Hidden: true,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, given []string) error {
			conn, err := new(net.Dialer).DialContext(c.Context(), "unix", given[0])
			if err != nil {
				return err
			}
			defer conn.Close()
			done := make(chan error, 2)
			go func() {
				_, err := io.Copy(conn, e.stdin)
				done <- err
			}()
			go func() {
				_, err := io.Copy(e.stdout, conn)
				done <- err
			}()
			select {
			case err := <-done: // either end is the end of both
				return err
			case <-c.Context().Done():
				return nil
			}
		},
	}
}
