package inject

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/intstr"
)

const (
	initName  = "heddle-init"
	proxyName = "heddle-proxy"

	runVolume, runPath     = "heddle-run", "/run/heddle"
	tokenVolume, tokenPath = "heddle-token", "/var/run/secrets/heddle"
	tmpVolume              = "heddle-tmp"

	healthPort, metricsPort = 15021, 15020
	program                 = "/usr/local/bin/heddle" // in the image
	tokenLife               = 3600                    // seconds; the kubelet replaces the file in time
	tokenAudience           = "heddle"
)

// initContainer redirects the pod's traffic. It alone may change the network, and ends
// before anything else of the pod begins.
func initContainer(c Config, s settings) corev1.Container {
	args := []string{"capture", "apply"}
	for _, flag := range []struct{ name, value string }{
		{"--exclude-inbound-ports", s.inboundPorts},
		{"--exclude-outbound-ports", s.outboundPorts},
		{"--exclude-outbound-cidrs", s.outboundCIDRs},
	} {
		if flag.value != "" {
			args = append(args, flag.name+"="+flag.value)
		}
	}
	return corev1.Container{
		Name: initName, Image: c.Image, ImagePullPolicy: corev1.PullPolicy(c.PullPolicy), Args: args,
		Resources: s.resources,
		SecurityContext: &corev1.SecurityContext{
			RunAsUser: ptr(int64(0)), RunAsGroup: ptr(int64(0)), RunAsNonRoot: ptr(false),
			ReadOnlyRootFilesystem: ptr(true), AllowPrivilegeEscalation: ptr(false), Privileged: ptr(false),
			Capabilities:   &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}, Add: []corev1.Capability{"NET_ADMIN"}},
			SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
		},
	}
}

// proxyContainer is the sidecar: an init container that goes on (KEP-753), so that it is
// ready before the application starts and stays until that has ended; a Job ends with
// its own containers.
func proxyContainer(c Config, s settings, probes string) corev1.Container {
	args := []string{
		"sidecar", "--pod", "--control-plane=" + c.ControlPlane,
		"--trust-domain=" + c.TrustDomain, "--cluster-domain=" + c.ClusterDomain,
	}
	for _, flag := range []struct{ name, value string }{
		{"--log-level", s.logLevel}, {"--concurrency", s.concurrency}, {"--collector", c.Collector},
	} {
		if flag.value != "" {
			args = append(args, flag.name+"="+flag.value)
		}
	}
	if c.CNI {
		// No init container of the pod fails where the rules are not there.
		args = append(args, "--verify-capture")
	}
	var hook *corev1.Lifecycle
	var startup *corev1.Probe
	if c.hold() == HoldProbe {
		// The application starts when this succeeds first: the answer comes at that moment.
		started := corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/ready?wait=20s", Port: intstr.FromInt32(healthPort)}}
		startup = &corev1.Probe{ProbeHandler: started, PeriodSeconds: 1, FailureThreshold: 60, TimeoutSeconds: 30}
	} else {
		args = append(args, "--hook")
		hook = &corev1.Lifecycle{PostStart: &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{program, "await-sidecar"}}}}
	}
	ready := corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/ready", Port: intstr.FromInt32(healthPort)}}
	always := corev1.ContainerRestartPolicyAlways
	return corev1.Container{
		Name: proxyName, Image: c.Image, ImagePullPolicy: corev1.PullPolicy(c.PullPolicy), RestartPolicy: &always,
		Args: args, Env: environment(c, probes), Resources: s.resources,
		Ports:                    []corev1.ContainerPort{{Name: "heddle-health", ContainerPort: healthPort}, {Name: "heddle-metrics", ContainerPort: metricsPort}},
		TerminationMessagePolicy: corev1.TerminationMessageFallbackToLogsOnError, // so that the pod's status says what is wrong
		Lifecycle:                hook, StartupProbe: startup,
		ReadinessProbe: &corev1.Probe{ProbeHandler: ready, PeriodSeconds: 10, FailureThreshold: 3, TimeoutSeconds: 3},
		SecurityContext: &corev1.SecurityContext{
			RunAsUser: ptr(int64(ProxyUID)), RunAsGroup: ptr(int64(ProxyUID)), RunAsNonRoot: ptr(true),
			ReadOnlyRootFilesystem: ptr(true), AllowPrivilegeEscalation: ptr(false), Privileged: ptr(false),
			Capabilities:   &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
			SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
		},
		VolumeMounts: []corev1.VolumeMount{
			{Name: runVolume, MountPath: runPath},
			{Name: tmpVolume, MountPath: "/tmp"},
			{Name: tokenVolume, MountPath: tokenPath, ReadOnly: true},
		},
	}
}

func environment(c Config, probes string) []corev1.EnvVar {
	field := func(name, path string) corev1.EnvVar {
		return corev1.EnvVar{Name: name, ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: path}}}
	}
	env := []corev1.EnvVar{
		field("HEDDLE_POD_NAME", "metadata.name"),
		field("HEDDLE_POD_NAMESPACE", "metadata.namespace"),
		field("HEDDLE_POD_IPS", "status.podIPs"),
		field("HEDDLE_NODE_NAME", "spec.nodeName"),
		field("HEDDLE_SERVICE_ACCOUNT", "spec.serviceAccountName"),
		// The API server copies the label from the node when the pod is bound to it (KEP-4742, on
		// by default since 1.35); where it does not, zones are not weighed.
		field("HEDDLE_ZONE", "metadata.labels['"+corev1.LabelTopologyZone+"']"),
		{Name: "HEDDLE_ROOTS", Value: strings.Join(c.Roots, ",")},
	}
	if probes != "" {
		env = append(env, corev1.EnvVar{Name: probesVariable, Value: probes})
	}
	return env
}

// volumes are those of the sidecar. What it writes is in memory: keys are never on a disk.
func volumes() []corev1.Volume {
	memory := func(size string) corev1.VolumeSource {
		return corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory, SizeLimit: ptr(resource.MustParse(size))}}
	}
	return []corev1.Volume{
		{Name: runVolume, VolumeSource: memory("64Mi")},
		{Name: tmpVolume, VolumeSource: memory("16Mi")},
		{Name: tokenVolume, VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
			Sources: []corev1.VolumeProjection{{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{
				Audience: tokenAudience, ExpirationSeconds: ptr(int64(tokenLife)), Path: "token",
			}}},
		}}}, // of mode 0644, since the users of the pod's containers differ; only the sidecar mounts it
	}
}

func ptr[T any](v T) *T { return &v }
