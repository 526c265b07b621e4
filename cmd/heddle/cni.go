package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/rest"

	"github.com/heddle-mesh/heddle/integration/cni"
	"github.com/heddle-mesh/heddle/integration/kubernetes"
	"github.com/heddle-mesh/heddle/integration/kubernetes/inject"
)

// cniFlags are those of heddle cni.
type cniFlags struct {
	node                              cni.NodeConfig
	nodeName, namespace, set, account string
	meshNamespace, ready              string
	debug                             bool
}

func cniCommand(e *env) *cobra.Command {
	c := &cobra.Command{
		Use:   "cni",
		Short: "Keep the CNI plugin in place on a Kubernetes node",
	}
	c.AddCommand(cniInstallCommand(e), cniRemoveCommand(e))
	return c
}

// add adds the flags of both commands.
func (f *cniFlags) add(c *cobra.Command) {
	fs := c.Flags()
	fs.StringVar(&f.node.BinDir, "bin-dir", "/opt/cni/bin", "the node's folder of CNI plugins")
	fs.StringVar(&f.node.ConfDir, "conf-dir", "/etc/cni/net.d", "the node's folder of CNI configurations")
	fs.BoolVar(&f.debug, "debug", false, "log what is of use to Heddle's developers only")
}

func (f *cniFlags) logger(e *env) *slog.Logger {
	if f.debug {
		return e.logger(slog.LevelDebug)
	}
	return e.logger(slog.LevelInfo)
}

func cniInstallCommand(e *env) *cobra.Command {
	var f cniFlags
	c := &cobra.Command{
		Use:   "install [flags]",
		Short: "Put the plugin on this node, and stay to keep it there",
		Long: `Copies this program as heddle-cni into the node's folder of plugins, writes how it reaches
the API server, and chains it behind the network's own plugin. It repairs what others
change of that, renews the plugin's token, and looks for pods of the mesh on this node that
were started without it: those that a controller makes anew are deleted, of others there is
an event. It is what the chart's DaemonSet heddle-cni runs.

On SIGTERM the plugin stays, as the pod may only be replaced by a newer one; if the
DaemonSet is being deleted, the node is left as it was.`,
		Args: args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			f.node.Log = f.logger(e)
			return f.install(c.Context())
		},
	}
	f.add(c)
	fs := c.Flags()
	fs.StringVar(&f.node.HostConfDir, "host-conf-dir", "", "path of --conf-dir on the node itself (default the same)")
	fs.StringVar(&f.node.ConfFile, "conf-file", "", "configuration in --conf-dir to chain to (default the first, which the runtime takes)")
	fs.StringVar(&f.node.Program, "program", "/proc/self/exe", "the program to copy")
	fs.StringVar(&f.nodeName, "node", os.Getenv("HEDDLE_NODE_NAME"), "name of the node")
	fs.StringVar(&f.namespace, "namespace", os.Getenv("HEDDLE_POD_NAMESPACE"), "namespace of the DaemonSet and the service account")
	fs.StringVar(&f.set, "daemonset", cni.Name, "the DaemonSet that this belongs to")
	fs.StringVar(&f.account, "plugin-account", cni.Name+"-plugin", "service account of the plugin, which may read pods and nothing else")
	fs.StringVar(&f.meshNamespace, "mesh-namespace", "heddle-system", "namespace of the mesh's own objects")
	fs.StringVar(&f.ready, "ready", "", "ADDRESS:PORT that answers GET /readyz; empty for none")
	return c
}

func cniRemoveCommand(e *env) *cobra.Command {
	var f cniFlags
	c := &cobra.Command{
		Use:   "remove [flags]",
		Short: "Take the plugin off this node",
		Long: `Takes the plugin out of every configuration of the node, and removes its kubeconfig and
program. 'heddle cni install' does this itself when its DaemonSet is deleted; this is for a
node that was off then.`,
		Args: args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			f.node.Log = f.logger(e)
			return cni.NewNode(f.node).Remove()
		},
	}
	f.add(c)
	return c
}

// install runs until the context ends, and takes the plugin away if it is to go.
func (f *cniFlags) install(ctx context.Context) error {
	api, err := rest.InClusterConfig()
	if err != nil {
		return fmt.Errorf("find the API server: %w", err)
	}
	if f.nodeName == "" || f.namespace == "" {
		return usagef("say --node and --namespace, or set HEDDLE_NODE_NAME and HEDDLE_POD_NAMESPACE")
	}
	api.UserAgent = "heddle-cni-install"
	client, err := kubernetes.NewClient(api)
	if err != nil {
		return err
	}
	if f.node.CA, err = os.ReadFile(api.CAFile); err != nil {
		return fmt.Errorf("read the CA of the API server: %w", err)
	}
	f.node.Server = api.Host
	if f.node.HostConfDir == "" {
		f.node.HostConfDir = f.node.ConfDir
	}
	f.node.SkipNamespaces = append(inject.SystemNamespaces(), f.meshNamespace)
	f.node.Token = func(ctx context.Context) (string, time.Time, error) {
		return client.NodeToken(ctx, f.namespace, f.account, f.nodeName, tokenLife)
	}
	node := cni.NewNode(f.node)
	repair := cni.Repair{Client: client, Node: f.nodeName, InPlace: node.InPlace, Log: f.node.Log}
	group, running := errgroup.WithContext(ctx)
	group.Go(func() error { return node.Run(running) })
	group.Go(func() error { return repair.Run(running) })
	group.Go(func() error { return f.serveReady(running, node) })
	if err := group.Wait(); err != nil {
		return err
	}
	return f.leave(context.WithoutCancel(ctx), client, node)
}

// tokenLife is long, so that a node outlives a time without us; a token is renewed at half.
const tokenLife = 24 * time.Hour

// leave takes the plugin away if the DaemonSet is deleted.
func (f *cniFlags) leave(ctx context.Context, client *kubernetes.Client, node *cni.Node) error {
	stays, err := client.DaemonSetStays(ctx, f.namespace, f.set)
	if err != nil {
		f.node.Log.Warn("the plugin stays: it is not known whether it is to go", "error", err)
		return nil
	}
	if stays {
		f.node.Log.Info("the plugin stays for the next pod of its DaemonSet")
		return nil
	}
	return node.Remove()
}

// serveReady tells the kubelet, and so those who wait for the DaemonSet.
func (f *cniFlags) serveReady(ctx context.Context, node *cni.Node) error {
	if f.ready == "" {
		return nil
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if !node.InPlace() {
			http.Error(w, "the plugin is not in place; the log says why", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	server := &http.Server{Addr: f.ready, Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve /readyz: %w", err)
	}
	return nil
}
