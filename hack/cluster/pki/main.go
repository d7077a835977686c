// SPDX-License-Identifier: Apache-2.0

// pki makes the keys, certificates and kubeconfigs of a test cluster in a folder that
// is not there yet: all of them or none.
//
//	pki -dir DIR -server URL -node-server URL -san NAME,ADDRESS,... -nodes NODE=ADDRESS+ADDRESS,...
package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"flag"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// lifetime of everything: test clusters are not kept.
const lifetime = 365 * 24 * time.Hour

func main() {
	dir := flag.String("dir", "", "`folder` to make")
	server := flag.String("server", "", "`URL` of the API server for the control plane's programs")
	nodeServer := flag.String("node-server", "", "`URL` of the API server for nodes")
	sans := flag.String("san", "", "names and addresses of the API server, separated by commas")
	nodes := flag.String("nodes", "", "nodes with their addresses: NODE=ADDRESS+ADDRESS, separated by commas")
	flag.Parse()
	if *dir == "" || *server == "" || *nodeServer == "" || *sans == "" || *nodes == "" || flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	if err := write(*dir, *server, *nodeServer, strings.Split(*sans, ","), strings.Split(*nodes, ",")); err != nil {
		fmt.Fprintln(os.Stderr, "pki:", err)
		os.Exit(1)
	}
}

func write(dir, server, nodeServer string, sans, nodes []string) error {
	tmp, err := os.MkdirTemp(filepath.Dir(dir), filepath.Base(dir)+".*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	a, err := newAuthority(tmp)
	if err != nil {
		return fmt.Errorf("make authority: %w", err)
	}
	if err := a.issue("apiserver", pkix.Name{CommonName: "kube-apiserver"}, sans); err != nil {
		return err
	}
	masters := []string{"system:masters"}
	for _, c := range []struct {
		file, server string
		subject      pkix.Name
		sans         []string
	}{
		{"admin", server, pkix.Name{CommonName: "admin", Organization: masters}, nil},
		{"apiserver-kubelet", server, pkix.Name{CommonName: "apiserver-kubelet", Organization: masters}, nil},
		{"controller-manager", server, pkix.Name{CommonName: "system:kube-controller-manager"}, nil},
		{"scheduler", server, pkix.Name{CommonName: "system:kube-scheduler"}, nil},
		{"proxy", nodeServer, pkix.Name{CommonName: "system:kube-proxy"}, nil},
	} {
		if err := a.client(c.file, c.server, c.subject, c.sans); err != nil {
			return err
		}
	}
	for _, n := range nodes {
		name, addresses, ok := strings.Cut(n, "=")
		if !ok {
			return fmt.Errorf("node %q: want NODE=ADDRESS+ADDRESS", n)
		}
		subject := pkix.Name{CommonName: "system:node:" + name, Organization: []string{"system:nodes"}}
		if err := a.client(name, nodeServer, subject, append([]string{name}, strings.Split(addresses, "+")...)); err != nil {
			return err
		}
	}
	// Tokens of service accounts are signed with RSA: every client can check that.
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	if err := a.writeKey("service-accounts", key); err != nil {
		return err
	}
	return os.Rename(tmp, dir)
}

// authority issues certificates into a folder.
type authority struct {
	dir  string // where files are written
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(dir string) (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	t := template(pkix.Name{CommonName: "fairlead-test-cluster"}, 1)
	t.IsCA, t.BasicConstraintsValid = true, true
	t.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return nil, err
	}
	a := &authority{dir: dir, key: key}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		return nil, err
	}
	if err := a.writePEM("ca.crt", "CERTIFICATE", der); err != nil {
		return nil, err
	}
	return a, a.writeKey("ca", key)
}

func template(subject pkix.Name, serial int64) *x509.Certificate {
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: subject,
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(lifetime), // clocks of nodes may differ
	}
}

// issue writes FILE.crt and FILE.key, for servers and clients.
func (a *authority) issue(file string, subject pkix.Name, sans []string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	t := template(subject, time.Now().UnixNano())
	t.KeyUsage = x509.KeyUsageDigitalSignature
	t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	for _, s := range sans {
		if ip := net.ParseIP(s); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else {
			t.DNSNames = append(t.DNSNames, s)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, t, a.cert, key.Public(), a.key)
	if err != nil {
		return fmt.Errorf("issue certificate of %s: %w", file, err)
	}
	if err := a.writePEM(file+".crt", "CERTIFICATE", der); err != nil {
		return err
	}
	return a.writeKey(file, key)
}

// client writes a certificate and a kubeconfig that holds it.
func (a *authority) client(file, server string, subject pkix.Name, sans []string) error {
	if err := a.issue(file, subject, sans); err != nil {
		return err
	}
	var data [3]string
	for i, f := range []string{"ca.crt", file + ".crt", file + ".key"} {
		b, err := os.ReadFile(filepath.Join(a.dir, f))
		if err != nil {
			return err
		}
		data[i] = base64.StdEncoding.EncodeToString(b)
	}
	config := fmt.Sprintf(`apiVersion: v1
kind: Config
clusters:
- name: fairlead
  cluster:
    server: %s
    certificate-authority-data: %s
users:
- name: %s
  user:
    client-certificate-data: %s
    client-key-data: %s
contexts:
- name: fairlead
  context: {cluster: fairlead, user: %[3]s}
current-context: fairlead
`, server, data[0], file, data[1], data[2])
	return os.WriteFile(filepath.Join(a.dir, file+".kubeconfig"), []byte(config), 0o600)
}

func (a *authority) writeKey(file string, key crypto.Signer) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return a.writePEM(file+".key", "PRIVATE KEY", der)
}

func (a *authority) writePEM(file, kind string, der []byte) error {
	return os.WriteFile(filepath.Join(a.dir, file), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}
