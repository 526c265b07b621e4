package main

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"

	"github.com/spf13/cobra"

	"github.com/heddle-mesh/heddle/integration/kubernetes/inject"
)

// injectFlags are those of heddle inject.
type injectFlags struct {
	files     []string
	namespace string
	explain   string
	context   string // of kubectl
	roots     []string
	resources string // as JSON
	sidecars  inject.Config
}

func injectCommand(e *env) *cobra.Command {
	var f injectFlags
	c := &cobra.Command{
		Use:   "inject -f FILE | inject --explain NAMESPACE/POD",
		Short: "Put sidecars into the workloads of a file, or say why a pod has one or not",
		Long: `Writes the documents of the files to standard output, with a sidecar in every pod and
template of pods: what the webhook does in a cluster, for clusters where it may not. Labels
and annotations of the pods count as there; namespaces count as labelled unless a document
says otherwise. Everything else stays as it is, comments too. With an error nothing is written.

With --explain it says why a pod of the cluster has a sidecar or not, and what to do. It asks
kubectl; with -f it reads what "kubectl get pod/POD namespace/NAMESPACE -o json" wrote.`,
		Example: `  heddle inject -f shop.yaml --image heddle.local/heddle:dev --roots root.pem | kubectl apply -f -
  heddle inject --explain shop/api-7c9d8b6f5-x2x4q`,
		Args: args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			switch {
			case f.explain != "":
				return f.runExplain(c.Context(), e)
			case len(f.files) == 0:
				return usagef("give a file with -f, or - for standard input")
			}
			return f.run(e)
		},
	}
	f.add(c)
	return c
}

func (f *injectFlags) add(c *cobra.Command) {
	fs := c.Flags()
	f.sidecars = inject.DefaultConfig()
	fs.StringArrayVarP(&f.files, "file", "f", nil, "file or directory of YAML or JSON documents, or - for standard input; may be given again")
	fs.StringVarP(&f.namespace, "namespace", "n", "default", "namespace of objects that name none")
	fs.StringVar(&f.explain, "explain", "", "say why this pod, NAMESPACE/POD, has a sidecar or not")
	fs.StringVar(&f.context, "context", "", "with --explain: context of kubectl (default its current one)")
	fs.StringSliceVar(&f.roots, "roots", nil, "root certificates of the mesh: PEM files or SHA-256 fingerprints; injected pods of the cluster have them as HEDDLE_ROOTS")
	fs.StringVar(&f.sidecars.Image, "image", "", "image of the sidecars")
	fs.StringVar(&f.sidecars.PullPolicy, "pull-policy", f.sidecars.PullPolicy, "when the image is pulled: Always, IfNotPresent or Never")
	fs.StringVar(&f.sidecars.Revision, "revision", f.sidecars.Revision, "the revision that injects")
	fs.StringVar(&f.sidecars.Namespace, "mesh-namespace", f.sidecars.Namespace, "namespace of the control plane, where nothing is injected")
	fs.StringVar(&f.sidecars.TrustDomain, "trust-domain", f.sidecars.TrustDomain, "trust domain of the mesh")
	fs.StringVar(&f.sidecars.ClusterDomain, "cluster-domain", f.sidecars.ClusterDomain, "domain that the cluster's DNS names end with")
	fs.StringVar(&f.sidecars.ControlPlane, "control-plane", "", "HOST:PORT of the control plane (default that of the revision in the mesh's namespace)")
	fs.StringVar(&f.sidecars.Collector, "collector", "", "HOST:PORT that takes the sidecars' traces")
	fs.StringVar(&f.resources, "resources", "", "resources of the sidecars, as JSON of a container's")
	fs.StringVar(&f.sidecars.Hold, "hold", f.sidecars.Hold, "what holds an application back until its sidecar is ready: hook or probe")
	fs.BoolVar(&f.sidecars.CNI, "cni", false, "the CNI plugin captures traffic, pods need no init container for it")
}

// config checks the flags and makes the sidecars' configuration of them.
func (f *injectFlags) config() (inject.Config, error) {
	c := f.sidecars
	if c.Image == "" {
		return c, usagef("--image: give the image of the sidecars")
	}
	if len(f.roots) == 0 {
		return c, usagef("--roots: give the mesh's root certificate, by which sidecars know the control plane")
	}
	switch c.PullPolicy {
	case "Always", "IfNotPresent", "Never":
	default:
		return c, usagef("--pull-policy %q: it is one of Always, IfNotPresent, Never", c.PullPolicy)
	}
	if err := inject.CheckHold(c.Hold); err != nil {
		return c, usagef("--hold %w", err)
	}
	if f.resources != "" {
		c.Resources = inject.Config{}.Resources // in the place of the default, not beside it
		if err := json.Unmarshal([]byte(f.resources), &c.Resources); err != nil {
			return c, usagef("--resources: %v", err)
		}
	}
	service := "heddle-controlplane"
	if c.Revision != inject.DefaultRevision {
		service += "-" + c.Revision
	}
	c.ControlPlane = cmp.Or(c.ControlPlane, service+"."+c.Namespace+".svc:15010")
	for _, root := range f.roots {
		prints, err := rootPrints(root)
		if err != nil {
			return c, err
		}
		c.Roots = append(c.Roots, prints...)
	}
	return c, nil
}

var fingerprint = regexp.MustCompile(`^[0-9a-f]{64}$`)

// rootPrints are the fingerprints of a --roots: itself, or those of the certificates in
// the file it names.
func rootPrints(root string) ([]string, error) {
	if bare := strings.ToLower(strings.ReplaceAll(root, ":", "")); fingerprint.MatchString(bare) {
		return []string{bare}, nil
	}
	data, err := os.ReadFile(root)
	if err != nil {
		return nil, usagef("--roots %s: it is no SHA-256 fingerprint, and no file: %v", root, err)
	}
	var out []string
	for b, rest := pem.Decode(data); b != nil; b, rest = pem.Decode(rest) {
		if b.Type == "CERTIFICATE" {
			sum := sha256.Sum256(b.Bytes)
			out = append(out, hex.EncodeToString(sum[:]))
		}
	}
	if len(out) == 0 {
		return nil, usagef("--roots %s: the file has no certificate in PEM", root)
	}
	return out, nil
}

func (f *injectFlags) run(e *env) error {
	config, err := f.config()
	if err != nil {
		return err
	}
	sources, err := readSources(e, f.files)
	if err != nil {
		return err
	}
	var out bytes.Buffer
	var errs []error
	for i, s := range sources {
		text, results, err := inject.File(s.name, s.data, f.namespace, config)
		errs = append(errs, err)
		if i > 0 && !bytes.HasPrefix(text, []byte("---")) {
			out.WriteString("---\n")
		}
		out.Write(text)
		if len(text) > 0 && text[len(text)-1] != '\n' {
			out.WriteByte('\n')
		}
		for _, r := range results {
			if !r.Inject {
				fmt.Fprintf(e.stderr, "%s:%d: %s: left as it is: %s\n", s.name, r.Line, r.Object, r.Reason)
			}
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	_, err = e.stdout.Write(out.Bytes())
	return err
}
