package cni

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/heddle-mesh/heddle/integration/kubernetes"
	"github.com/heddle-mesh/heddle/integration/kubernetes/inject"
	"github.com/heddle-mesh/heddle/proxy/capture"
)

// Name is the plugin's: of its program, and its type in a configuration.
const Name = "heddle-cni"

// addPatience bounds the work on one pod; the kubelet tries again.
const addPatience = 20 * time.Second

// entry is the plugin's element of a network's list of plugins.
type entry struct {
	Type       string `json:"type"`
	Kubeconfig string `json:"kubeconfig"`
	// Pods of these namespaces are never of the mesh, and start without a question.
	SkipNamespaces []string `json:"skipNamespaces"`
}

// config is what the plugin is told on its standard input.
type config struct {
	types.PluginConf
	Kubeconfig     string   `json:"kubeconfig"`
	SkipNamespaces []string `json:"skipNamespaces"`
}

// IsPlugin tells whether the program was started as the plugin.
func IsPlugin(args []string) bool { return len(args) > 0 && filepath.Base(args[0]) == Name }

// Main runs the plugin, and gives its exit code. What is asked is in the environment.
func Main() int {
	err := skel.PluginMainFuncsWithError(skel.CNIFuncs{Add: add, Check: check, Del: del},
		version.VersionsStartingFrom("0.3.1"), "Heddle's CNI plugin: captures the traffic of the mesh's pods. It runs after the network's own plugin.")
	if err == nil {
		return 0
	}
	if print := err.Print(); print != nil {
		fmt.Fprintln(os.Stderr, print)
	}
	return 1
}

// add loads the rules if the pod is of the mesh. As long as that is not known it fails, so
// that no pod of the mesh ever runs without.
func add(args *skel.CmdArgs) error {
	c, err := readConfig(args.StdinData)
	if err != nil {
		return err
	}
	if c.PrevResult == nil {
		return types.NewError(types.ErrInvalidNetworkConfig, Name+" is the first plugin of its list", "it must come after the network's own plugin")
	}
	ctx, cancel := context.WithTimeout(context.Background(), addPatience)
	defer cancel()
	pod, err := meshPod(ctx, c, args.Args)
	if err != nil {
		return err
	}
	if pod != nil {
		rules, err := rulesOf(pod)
		if err == nil {
			err = rules.Apply(ctx, args.Netns)
		}
		if err != nil {
			return fmt.Errorf("capture the traffic of pod %s/%s: %w", pod.Namespace, pod.Name, err)
		}
	}
	return types.PrintResult(c.PrevResult, c.CNIVersion)
}

// check finds out whether the rules are there that add loaded.
func check(args *skel.CmdArgs) error {
	c, err := readConfig(args.StdinData)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), addPatience)
	defer cancel()
	pod, err := meshPod(ctx, c, args.Args)
	if err != nil || pod == nil {
		return err
	}
	there, err := capture.Applied(args.Netns)
	if err == nil && !there {
		err = capture.ErrNotCaptured
	}
	if err != nil {
		return fmt.Errorf("pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	return nil
}

// del has nothing to do: the rules go with the network namespace. So it asks nobody, and a
// pod can always be removed.
func del(*skel.CmdArgs) error { return nil }

func readConfig(data []byte) (*config, error) {
	c := new(config)
	if err := json.Unmarshal(data, c); err != nil {
		return nil, types.NewError(types.ErrDecodingFailure, "read the configuration of "+Name, err.Error())
	}
	if c.Kubeconfig == "" {
		return nil, types.NewError(types.ErrInvalidNetworkConfig, `the configuration of `+Name+` has no "kubeconfig"`, "heddle cni install writes it")
	}
	if err := version.ParsePrevResult(&c.PluginConf); err != nil {
		return nil, types.NewError(types.ErrDecodingFailure, "read the result of the plugin before "+Name, err.Error())
	}
	return c, nil
}

// podName is who the runtime says that the pod is.
type podName struct{ namespace, name, uid string }

// parseArgs reads CNI_ARGS: NAME=VALUE;...
func parseArgs(args string) podName {
	var p podName
	for pair := range strings.SplitSeq(args, ";") {
		name, value, _ := strings.Cut(pair, "=")
		switch name {
		case "K8S_POD_NAMESPACE":
			p.namespace = value
		case "K8S_POD_NAME":
			p.name = value
		case "K8S_POD_UID":
			p.uid = value
		}
	}
	return p
}

// meshPod gives the pod if it is of the mesh, else nil.
func meshPod(ctx context.Context, c *config, args string) (*corev1.Pod, error) {
	p := parseArgs(args)
	if p.name == "" || p.namespace == "" || slices.Contains(c.SkipNamespaces, p.namespace) {
		return nil, nil // no pod of Kubernetes, or one that the mesh needs itself
	}
	pod, err := lookUp(ctx, c.Kubeconfig, p)
	if err != nil {
		return nil, types.NewError(types.ErrTryAgainLater,
			fmt.Sprintf("%s cannot tell whether pod %s/%s is of the mesh, and does not let it start uncaptured", Name, p.namespace, p.name), err.Error())
	}
	if !ofMesh(pod) {
		return nil, nil
	}
	return pod, nil
}

func lookUp(ctx context.Context, kubeconfig string, p podName) (*corev1.Pod, error) {
	rest, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("read %s, which DaemonSet %s writes: %w", kubeconfig, Name, err)
	}
	rest.UserAgent = Name
	client, err := kubernetes.NewClient(rest)
	if err != nil {
		return nil, err
	}
	pod, err := client.Pod(ctx, p.namespace, p.name)
	if err != nil {
		return nil, err
	}
	if p.uid != "" && p.uid != string(pod.UID) && !isStatic(pod) {
		return nil, errors.New("another pod has its name by now")
	}
	return pod, nil
}

// isStatic tells whether a pod is made by the kubelet from a file. Its object is only an
// image of it, with another UID.
func isStatic(pod *corev1.Pod) bool {
	_, ok := pod.Annotations[corev1.MirrorPodAnnotationKey]
	return ok
}

// ofMesh tells whether a pod has a sidecar of ours, as discovery does. The webhook cannot
// put one into a static pod.
func ofMesh(pod *corev1.Pod) bool {
	return pod.Annotations[inject.Injected] != "" && inject.HasSidecar(pod) && !isStatic(pod)
}

// rulesOf are the rules that heddle-init would load.
func rulesOf(pod *corev1.Pod) (capture.Rules, error) {
	r := capture.PodRules()
	out, err := inject.ReadExclusions(pod)
	r.ExcludeInPorts, r.ExcludeOutPorts, r.ExcludeOutCIDRs = out.InboundPorts, out.OutboundPorts, out.OutboundCIDRs
	return r, err
}
