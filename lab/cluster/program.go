// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"fairlead.io/fairlead/translators/objects"
)

// Images that are part of the project.
const (
	EchoImage = "fairlead/echo"
	LoadImage = "fairlead/load"
)

// Program is what runs for a container.
type Program struct {
	Container string   `json:"container"`
	Image     string   `json:"image"`
	Runs      Runs     `json:"runs"`
	Shell     string   `json:"shell,omitempty"`   // command line that the image was mapped to
	Command   []string `json:"command,omitempty"` // in place of what the image would run
	Args      []string `json:"args,omitempty"`
	Env       []Env    `json:"env,omitempty"`
	Ports     []Port   `json:"ports,omitempty"` // that it is to listen on
	Note      string   `json:"note,omitempty"`  // how this differs from what the object says
}

// Runs says what kind of program it is.
type Runs string

// What may run for a container.
const (
	RunsEcho    Runs = "echo"    // the echo server on Ports
	RunsLoad    Runs = "load"    // the load generator with Args, idle without
	RunsCommand Runs = "command" // Command with Args, or Shell with Args
	RunsNothing Runs = "nothing"
)

// Env is a variable of the program's environment.
type Env struct {
	Name  string `json:"name"`
	Value string `json:"value"`
	field string // of the pod, where the value comes from
}

// Port is a port that a program listens on. Speaks is the echo server's word for
// the protocol: http, tcp, tcp-banner, tls, udp, or auto to judge by the first bytes.
type Port struct {
	Number uint16 `json:"number"`
	Speaks string `json:"speaks"`
}

// programs decides what runs for each of the pod's containers.
func (b *builder) programs(o *objects.Object, p *Pod) []Program {
	var out []Program
	anyPorts := slices.ContainsFunc(p.Object.Spec.Containers, func(c corev1.Container) bool { return len(c.Ports) > 0 })
	for i, c := range p.Object.Spec.Containers {
		pr := Program{Container: c.Name, Image: c.Image, Args: slices.Clone(c.Args), Env: b.env(o, c), Ports: b.ports(o, p, c)}
		if !anyPorts && i == 0 {
			pr.Ports = b.servicePorts(p)
		}
		bare := bareImage(c.Image)
		shell, mapped := b.options.Images[c.Image]
		if !mapped {
			shell, mapped = b.options.Images[bare]
		}
		known := strings.TrimPrefix(bare, "docker.io/")
		switch {
		case mapped:
			pr.Runs, pr.Shell = RunsCommand, shell
			pr.Note = fmt.Sprintf("image %s: runs %q of this machine", c.Image, shell)
		case (known == EchoImage || known == LoadImage) && len(c.Command) > 0:
			pr.Runs, pr.Command = RunsCommand, slices.Clone(c.Command)
		case known == EchoImage:
			pr.Runs = RunsEcho
		case known == LoadImage:
			pr.Runs = RunsLoad
		case len(pr.Ports) > 0:
			pr.Runs, pr.Args, pr.Env = RunsEcho, nil, nil
			pr.Note = fmt.Sprintf("image %s: not run, echo server on %s in its place", c.Image, portList(pr.Ports))
		default:
			pr.Runs = RunsNothing
			pr.Note = fmt.Sprintf("image %s: not run, and no port of it is known to put an echo server on", c.Image)
		}
		if pr.Note != "" {
			b.note(o, "%s", pr.Note)
		}
		out = append(out, pr)
	}
	return out
}

// bareImage is the image without tag and digest.
func bareImage(image string) string {
	image, _, _ = strings.Cut(image, "@")
	if i := strings.LastIndexByte(image, ':'); i > strings.LastIndexByte(image, '/') {
		image = image[:i]
	}
	return image
}

func portList(ports []Port) string {
	var s []string
	for _, p := range ports {
		s = append(s, fmt.Sprint(p.Number))
	}
	return strings.Join(s, ", ")
}

// ports are the container's, with what is spoken there.
func (b *builder) ports(o *objects.Object, p *Pod, c corev1.Container) []Port {
	var out []Port
	for _, cp := range c.Ports {
		if cp.ContainerPort < 1 || cp.ContainerPort > 65535 || !slices.Contains([]corev1.Protocol{"", corev1.ProtocolTCP, corev1.ProtocolUDP}, cp.Protocol) {
			b.note(o, "port %d/%s of container %s is left out: it is not TCP or UDP", cp.ContainerPort, cp.Protocol, c.Name)
			continue
		}
		out = append(out, Port{uint16(cp.ContainerPort), speaks(cp.Protocol, append(b.hints(p, cp), cp.Name)...)})
	}
	return unique(out)
}

// unique drops ports that are listed twice; TCP and UDP are apart.
func unique(ports []Port) []Port {
	seen := map[Port]bool{}
	return slices.DeleteFunc(ports, func(p Port) bool {
		k := Port{p.Number, map[bool]string{true: "udp", false: "tcp"}[p.Speaks == "udp"]}
		defer func() { seen[k] = true }()
		return seen[k]
	})
}

// hints are what services that lead to a container's port say about its protocol.
func (b *builder) hints(p *Pod, cp corev1.ContainerPort) []string {
	var out []string
	for _, s := range b.selecting(p) {
		for _, sp := range s.object.Spec.Ports {
			n, ok := target(sp, p.Object)
			if ok && int32(n) == cp.ContainerPort && cmp.Or(sp.Protocol, corev1.ProtocolTCP) == cmp.Or(cp.Protocol, corev1.ProtocolTCP) {
				out = append(out, portHints(sp)...)
			}
		}
	}
	return out
}

func portHints(sp corev1.ServicePort) []string {
	if sp.AppProtocol != nil {
		return []string{*sp.AppProtocol, sp.Name}
	}
	return []string{sp.Name}
}

// servicePorts are the ports that services expect of a pod that declares none.
func (b *builder) servicePorts(p *Pod) []Port {
	var out []Port
	for _, s := range b.selecting(p) {
		for _, sp := range s.object.Spec.Ports {
			if n, ok := target(sp, p.Object); ok && slices.Contains([]corev1.Protocol{"", corev1.ProtocolTCP, corev1.ProtocolUDP}, sp.Protocol) {
				out = append(out, Port{n, speaks(sp.Protocol, portHints(sp)...)})
			}
		}
	}
	return unique(out)
}

// speaks chooses the protocol of a port by the first name that says one.
func speaks(proto corev1.Protocol, names ...string) string {
	if proto == corev1.ProtocolUDP {
		return "udp"
	}
	for _, name := range names {
		name = strings.TrimPrefix(strings.ToLower(name), "kubernetes.io/")
		switch word, _, _ := strings.Cut(name, "-"); {
		case strings.HasPrefix(name, "tcp-banner"), slices.Contains([]string{"banner", "mysql", "smtp", "ftp", "ssh"}, word):
			return "tcp-banner"
		case slices.Contains([]string{"http", "http2", "h2c", "grpc", "ws"}, word):
			return "http"
		case slices.Contains([]string{"tls", "https"}, word):
			return "tls"
		case slices.Contains([]string{"tcp", "mongo", "redis"}, word):
			return "tcp"
		}
	}
	return "auto"
}

// env is the container's environment, as far as it is known before the pod has a
// place.
func (b *builder) env(o *objects.Object, c corev1.Container) []Env {
	var out []Env
	for _, e := range c.Env {
		switch {
		case e.ValueFrom == nil:
			out = append(out, Env{Name: e.Name, Value: e.Value})
		case e.ValueFrom.FieldRef != nil:
			out = append(out, Env{Name: e.Name, field: e.ValueFrom.FieldRef.FieldPath})
		default:
			b.note(o, "variable %s of container %s is left out: only values and fields of the pod are known", e.Name, c.Name)
		}
	}
	return out
}

var variable = regexp.MustCompile(`\$(\$|\([A-Za-z_][A-Za-z0-9_.-]*\))`)

// expandVars replaces $(NAME) by what is known and $$ by $, as Kubernetes does.
func expandVars(s string, known map[string]string) string {
	return variable.ReplaceAllStringFunc(s, func(m string) string {
		if m == "$$" {
			return "$"
		}
		if v, ok := known[m[2:len(m)-1]]; ok {
			return v
		}
		return m
	})
}
