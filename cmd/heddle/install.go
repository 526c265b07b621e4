package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/yaml"

	"github.com/heddle-mesh/heddle/install/kubernetes"
)

// installFlags are those of heddle install and uninstall.
type installFlags struct {
	kubeconfig, context, namespace string
	sets, files                    []string
	timeout                        time.Duration
}

func (f *installFlags) add(c *cobra.Command) {
	fs := c.Flags()
	fs.StringVar(&f.kubeconfig, "kubeconfig", "", "file that says where the cluster is (default $KUBECONFIG, else ~/.kube/config)")
	fs.StringVar(&f.context, "context", "", "context of that file (default its current one)")
	fs.StringVarP(&f.namespace, "namespace", "n", kubernetes.Namespace, "namespace of the control plane")
	fs.StringArrayVar(&f.sets, "set", nil, "set a value, PATH=VALUE such as controlPlane.replicas=3; may be given again")
	fs.StringArrayVarP(&f.files, "values", "f", nil, "YAML file of values; may be given again, later ones go before")
	fs.DurationVar(&f.timeout, "timeout", 5*time.Minute, "how long to wait")
}

// rest finds the cluster.
func (f *installFlags) rest() (*rest.Config, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = f.kubeconfig
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{CurrentContext: f.context}).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("find the cluster: %w", err)
	}
	config.UserAgent = "heddle"
	config.QPS, config.Burst = 50, 100
	return config, nil
}

// values are the chart's with what the flags change.
func (f *installFlags) values() (kubernetes.Values, error) {
	v, err := kubernetes.DefaultValues()
	if err != nil {
		return nil, err
	}
	return v, f.over(v)
}

// over puts what the flags say over values.
func (f *installFlags) over(v kubernetes.Values) error {
	for _, file := range f.files {
		data, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if err := v.Merge(file, data); err != nil {
			return &exitError{exitUsage, err}
		}
	}
	for _, set := range f.sets {
		if err := v.Set(set); err != nil {
			return &exitError{exitUsage, err}
		}
	}
	return nil
}

func (f *installFlags) installer(e *env) (*kubernetes.Installer, error) {
	config, err := f.rest()
	if err != nil {
		return nil, err
	}
	return kubernetes.NewInstaller(config, e.stdout)
}

// bring applies an installation of these values, waits until it is ready, and deletes what it
// had before and has no more.
func (f *installFlags) bring(ctx context.Context, installer *kubernetes.Installer, values kubernetes.Values, dryRun bool) error {
	objects, err := kubernetes.Render(f.namespace, values)
	if err != nil {
		return err
	}
	record, err := kubernetes.Record(f.namespace, values)
	if err != nil {
		return err
	}
	outdated, err := installer.Outdated(ctx, f.namespace, values, objects)
	if err != nil {
		return err
	}
	if err := installer.Apply(ctx, append(objects, record), dryRun); err != nil {
		return err
	}
	if !dryRun {
		if err := f.awaitReady(ctx, installer, values); err != nil {
			return err
		}
	}
	return installer.Delete(ctx, outdated, dryRun)
}

// awaitReady waits until everything that values ask for is ready.
func (f *installFlags) awaitReady(ctx context.Context, installer *kubernetes.Installer, values kubernetes.Values) error {
	if namespace, name, there := kubernetes.NodeAgent(values); there {
		if err := installer.WaitNodes(ctx, namespace, name); err != nil {
			return err
		}
	}
	if err := installer.WaitReady(ctx, f.namespace, kubernetes.DeploymentName(values)); err != nil {
		return err
	}
	if name, there := kubernetes.Ingress(values); there {
		return installer.WaitReady(ctx, f.namespace, name)
	}
	return nil
}

func installCommand(e *env) *cobra.Command {
	var f installFlags
	var dryRun string
	c := &cobra.Command{
		Use:   "install [flags]",
		Short: "Install the control plane on a Kubernetes cluster, or change an installation",
		Long: `Applies the objects of the Helm chart by server-side apply and waits until every replica of
the control plane is ready. Run again, with other values or from another version, it
changes what is different and no more, and deletes what belongs to a feature that is off
now; values that are not given again are the chart's. heddle upgrade keeps them, and
checks first.

Then choose who gets sidecars:
  kubectl label namespace NAME heddle.dev/inject=enabled
and restart what runs there.`,
		Example: `  heddle install
  heddle install --set controlPlane.replicas=3 --set trustDomain=shop.example
  heddle install --dry-run=client > heddle.yaml`,
		Args: args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			values, err := f.values()
			if err != nil {
				return err
			}
			objects, err := kubernetes.Render(f.namespace, values)
			if err != nil {
				return err
			}
			switch dryRun {
			case "none", "server":
			case "client":
				for _, o := range objects {
					data, err := yaml.Marshal(o.Object)
					if err != nil {
						return err
					}
					fmt.Fprintf(e.stdout, "---\n%s", data)
				}
				return nil
			default:
				return usagef("--dry-run %q: it is one of none, server, client", dryRun)
			}
			installer, err := f.installer(e)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeoutCause(c.Context(), f.timeout, fmt.Errorf("not ready within %s (--timeout)", f.timeout))
			defer cancel()
			forgotten, err := installer.Forgotten(ctx, f.namespace, values)
			if err != nil {
				return err
			}
			if len(forgotten) > 0 {
				fmt.Fprintf(e.stderr, "heddle: note: these values of the installation are the chart's again: %s; heddle upgrade keeps them\n", strings.Join(forgotten, ", "))
			}
			return f.bring(ctx, installer, values, dryRun == "server")
		},
	}
	f.add(c)
	c.Flags().StringVar(&dryRun, "dry-run", "none", "change nothing: server lets the API server check every object, client prints them")
	c.Flags().Lookup("dry-run").NoOptDefVal = "server"
	return c
}

func uninstallCommand(e *env) *cobra.Command {
	var f installFlags
	var definitions bool
	c := &cobra.Command{
		Use:   "uninstall [flags]",
		Short: "Take the control plane off a Kubernetes cluster",
		Long: `Deletes what heddle install made, the root key among it, and waits until it is gone. Pods
keep their sidecars until they are restarted; those keep their connections, and find no
new certificates when theirs expire.

The definitions of Heddle's kinds stay, and so do all objects of them, unless --crds is
given.`,
		Args: args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			values, err := f.values()
			if err != nil {
				return err
			}
			installer, err := f.installer(e)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeoutCause(c.Context(), f.timeout, fmt.Errorf("not gone within %s (--timeout)", f.timeout))
			defer cancel()
			return installer.Uninstall(ctx, f.namespace, values, definitions)
		},
	}
	f.add(c)
	c.Flags().BoolVar(&definitions, "crds", false, "delete the definitions of Heddle's kinds too, and with them every object of them")
	return c
}
