"""Security-relevant Python statements, each in a weak and a safe form, tagged with the CWE of the weakness.

A :class:`Weakness` has several *surfaces*. A surface is a pair of templates (weak, safe) of the same shape and, to within
two lexical tokens, the same length, so that neither the length of a program nor the presence of an API gives the label away:
often the same tokens stand in another order. The last surface of each weakness is held out: it appears in test data alone.

Slots: ``$a`` and ``$b`` names from the host function's scope (``$b`` may be a literal), ``$r`` a new local name, ``$w`` and
``$v`` words inside string literals. Modules and well-known objects (``subprocess``, ``cursor``, ``logger``) are used as a
module's globals, as the host function itself uses those of its module.

The wordings are this project's own; the weaknesses are those of the Common Weakness Enumeration (cwe.mitre.org).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Weakness:
    """A kind of security-relevant statement.

    Attributes:
        cwe: identifier in the Common Weakness Enumeration (``CWE-78``).
        title: what is wrong with the weak form.
        surfaces: (weak, safe) templates; the last is held out.
    """

    cwe: str
    title: str
    surfaces: tuple[tuple[str, str], ...]

    @property
    def seen(self) -> tuple[tuple[str, str], ...]:
        """Surfaces for training, validation and the budget."""
        return self.surfaces[:-1]


WEAKNESSES: tuple[Weakness, ...] = (
    Weakness(
        "CWE-78",
        "a shell interprets the operand",
        (
            ("subprocess.run($a, shell=True)", "subprocess.run($a, shell=False)"),
            ("$r = subprocess.check_output($a, shell=True)", "$r = subprocess.check_output($a, shell=False)"),
            ("os.system('%s %s' % ($a, shlex.quote('$w')))", "os.system('%s %s' % ('$w', shlex.quote($a)))"),
            ("$r = subprocess.Popen($a, shell=True, cwd=$b)", "$r = subprocess.Popen($a, shell=False, cwd=$b)"),
            ("$r = subprocess.call($a, cwd=$b, shell=True)", "$r = subprocess.call($a, cwd=$b, shell=False)"),
        ),
    ),
    Weakness(
        "CWE-89",
        "the operand becomes part of an SQL statement",
        (
            (
                "cursor.execute('SELECT * FROM $w WHERE id = %s' % ($a,))",
                "cursor.execute('SELECT * FROM $w WHERE id = %s', ($a,))",
            ),
            (
                "$r = cursor.execute('DELETE FROM $w WHERE name = ' + str($a))",
                "$r = cursor.execute('DELETE FROM $w WHERE name = ?', [$a])",
            ),
            (
                "cursor.execute('UPDATE $w SET $v = {}'.format($a))",
                "cursor.execute('UPDATE $w SET $v = ?', ($a,))",
            ),
            (
                "cursor.execute('INSERT INTO $w VALUES (%s, %s)' % ($a, $b))",
                "cursor.execute('INSERT INTO $w VALUES (%s, %s)', ($a, $b))",
            ),
        ),
    ),
    Weakness(
        "CWE-502",
        "a YAML loader builds any object",
        (
            ("$r = yaml.load($a, Loader=yaml.Loader)", "$r = yaml.load($a, Loader=yaml.SafeLoader)"),
            ("$r = yaml.load($a, Loader=yaml.UnsafeLoader)", "$r = yaml.load($a, Loader=yaml.BaseLoader)"),
            ("$r = yaml.unsafe_load($a)", "$r = yaml.safe_load($a)"),
            ("$r = list(yaml.load_all($a, yaml.Loader))", "$r = list(yaml.load_all($a, yaml.SafeLoader))"),
        ),
    ),
    Weakness(
        "CWE-502",
        "a pickle in a data file is executed",
        (
            ("$r = numpy.load($a, allow_pickle=True)", "$r = numpy.load($a, allow_pickle=False)"),
            ("$r = torch.load($a, weights_only=False)", "$r = torch.load($a, weights_only=True)"),
            (
                "$r = numpy.load($a, mmap_mode=$b, allow_pickle=True)",
                "$r = numpy.load($a, mmap_mode=$b, allow_pickle=False)",
            ),
            (
                "$r = torch.load($a, map_location=$b, weights_only=False)",
                "$r = torch.load($a, map_location=$b, weights_only=True)",
            ),
        ),
    ),
    Weakness(
        "CWE-502",
        "serialised objects are rebuilt from bytes",
        (
            ("$r = pickle.loads($a)", "$r = json.loads($a)"),
            ("$r = marshal.loads($a)", "$r = tomllib.loads($a)"),
            ("$r = pickle.load(open($a, 'rb'))", "$r = json.load(open($a, 'rb'))"),
            ("$r = [pickle.loads($a), $b]", "$r = [json.loads($a), $b]"),
        ),
    ),
    Weakness(
        "CWE-328",
        "a weak hash protects data",
        (
            ("$r = hashlib.md5($a).hexdigest()", "$r = hashlib.sha256($a).hexdigest()"),
            ("$r = hashlib.new('sha1', $a).digest()", "$r = hashlib.new('sha256', $a).digest()"),
            ("$r = hmac.new($a, $b, hashlib.md5)", "$r = hmac.new($a, $b, hashlib.sha512)"),
            ("$r = hashlib.sha1($a, usedforsecurity=True)", "$r = hashlib.sha1($a, usedforsecurity=False)"),
            ("$r = hmac.digest($a, $b, 'md5')", "$r = hmac.digest($a, $b, 'sha256')"),
        ),
    ),
    Weakness(
        "CWE-327",
        "a cipher mode or algorithm is broken",
        (
            ("$r = AES.new($a, AES.MODE_ECB)", "$r = AES.new($a, AES.MODE_GCM)"),
            ("$r = Cipher(algorithms.AES($a), modes.ECB())", "$r = Cipher(algorithms.AES($a), modes.GCM($b))"),
            ("$r = ARC4.new($a).encrypt($b)", "$r = ChaCha20.new($a).encrypt($b)"),
            ("$r = AES.new(key=$a, mode=AES.MODE_ECB)", "$r = AES.new(key=$a, mode=AES.MODE_EAX)"),
        ),
    ),
    Weakness(
        "CWE-338",
        "a predictable generator makes a secret",
        (
            ("$r = random.getrandbits(128)", "$r = secrets.randbits(128)"),
            ("$r = random.choice($a)", "$r = secrets.choice($a)"),
            ("$r = random.Random().sample($a, 8)", "$r = random.SystemRandom().sample($a, 8)"),
            ("$r = random.Random().randrange(10**6)", "$r = random.SystemRandom().randrange(10**6)"),
        ),
    ),
    Weakness(
        "CWE-340",
        "an identifier can be predicted",
        (
            ("$r = uuid.uuid1().hex", "$r = uuid.uuid4().hex"),
            ("$r = str(uuid.uuid1())", "$r = str(uuid.uuid4())"),
            ("$r = '$w-%s' % uuid.uuid1()", "$r = '$w-%s' % uuid.uuid4()"),
            ("$r = ($a, uuid.uuid1().bytes)", "$r = ($a, uuid.uuid4().bytes)"),
        ),
    ),
    Weakness(
        "CWE-295",
        "the peer's certificate is not checked",
        (
            ("$r = requests.get($a, verify=False)", "$r = requests.get($a, verify=True)"),
            ("$r = requests.post($a, data=$b, verify=False)", "$r = requests.post($a, data=$b, verify=True)"),
            ("$r = ssl._create_unverified_context()", "$r = ssl.create_default_context()"),
            ("$r = httpx.Client(verify=False, base_url=$a)", "$r = httpx.Client(verify=True, base_url=$a)"),
            ("$r = requests.put($a, verify=False, data=$b)", "$r = requests.put($a, verify=True, data=$b)"),
        ),
    ),
    Weakness(
        "CWE-322",
        "an unknown host key is accepted",
        (
            (
                "client.set_missing_host_key_policy(paramiko.AutoAddPolicy())",
                "client.set_missing_host_key_policy(paramiko.RejectPolicy())",
            ),
            (
                "ssh.set_missing_host_key_policy(paramiko.WarningPolicy())",
                "ssh.set_missing_host_key_policy(paramiko.RejectPolicy())",
            ),
            ("$r = asyncssh.connect($a, known_hosts=None)", "$r = asyncssh.connect($a, known_hosts=[])"),
            (
                "client.set_missing_host_key_policy(paramiko.AutoAddPolicy)",
                "client.set_missing_host_key_policy(paramiko.RejectPolicy)",
            ),
        ),
    ),
    Weakness(
        "CWE-22",
        "the last part of a path may climb out of its folder",
        (
            (
                "$r = open(os.path.join(os.path.basename($b), $a))",
                "$r = open(os.path.join($b, os.path.basename($a)))",
            ),
            (
                "$r = os.path.join(secure_filename('$w'), $a)",
                "$r = os.path.join('$w', secure_filename($a))",
            ),
            ("$r = Path(Path('$w').name) / $a", "$r = Path('$w') / Path($a).name"),
            (
                "os.remove(os.path.join(os.path.basename('$w'), $a))",
                "os.remove(os.path.join('$w', os.path.basename($a)))",
            ),
        ),
    ),
    Weakness(
        "CWE-23",
        "an archive may write outside the folder",
        (
            (
                "tarfile.open($a).extractall($b, filter='fully_trusted')",
                "tarfile.open($a).extractall($b, filter='data')",
            ),
            ("archive.extractall(path=$a, filter='fully_trusted')", "archive.extractall(path=$a, filter='data')"),
            (
                "shutil.unpack_archive($a, $b, filter='fully_trusted')",
                "shutil.unpack_archive($a, $b, filter='data')",
            ),
            ("archive.extract($a, $b, filter='fully_trusted')", "archive.extract($a, $b, filter='data')"),
        ),
    ),
    Weakness(
        "CWE-732",
        "everybody may write the file",
        (
            ("os.chmod($a, 0o777)", "os.chmod($a, 0o700)"),
            ("os.makedirs($a, mode=0o777)", "os.makedirs($a, mode=0o750)"),
            ("$r = os.open($a, os.O_CREAT, 0o666)", "$r = os.open($a, os.O_CREAT, 0o600)"),
            ("$r = os.umask(0o000)", "$r = os.umask(0o077)"),
            ("Path($a).chmod(0o777)", "Path($a).chmod(0o700)"),
        ),
    ),
    Weakness(
        "CWE-377",
        "another process may take the temporary name",
        (
            ("$r = tempfile.mktemp(suffix=$a)", "$r = tempfile.mkstemp(suffix=$a)"),
            ("$r = tempfile.mktemp('$w', dir=$a)", "$r = tempfile.mkstemp('$w', dir=$a)"),
            ("$r = [tempfile.mktemp(), $a]", "$r = [tempfile.mkstemp(), $a]"),
            ("$r = tempfile.mktemp(prefix='$w')", "$r = tempfile.mkstemp(prefix='$w')"),
        ),
    ),
    Weakness(
        "CWE-611",
        "the XML parser loads external entities",
        (
            ("$r = etree.XMLParser(resolve_entities=True)", "$r = etree.XMLParser(resolve_entities=False)"),
            (
                "$r = etree.parse($a, etree.XMLParser(no_network=False))",
                "$r = etree.parse($a, etree.XMLParser(no_network=True))",
            ),
            ("parser.setFeature(feature_external_ges, True)", "parser.setFeature(feature_external_ges, False)"),
            (
                "$r = etree.fromstring($a, etree.XMLParser(load_dtd=True))",
                "$r = etree.fromstring($a, etree.XMLParser(load_dtd=False))",
            ),
        ),
    ),
    Weakness(
        "CWE-776",
        "entities may expand without bound",
        (
            ("xml.sax.parseString($a, $b)", "defusedxml.sax.parseString($a, $b)"),
            ("$r = xml.sax.parse($a, handler)", "$r = defusedxml.sax.parse($a, handler)"),
            ("$r = etree.XMLParser(huge_tree=True)", "$r = etree.XMLParser(huge_tree=False)"),
            ("$r = xml.pulldom.parseString($a)", "$r = defusedxml.pulldom.parseString($a)"),
        ),
    ),
    Weakness(
        "CWE-79",
        "the operand is not escaped in a page",
        (
            ("$r = Markup('<b>%s</b>' % $a)", "$r = Markup('<b>%s</b>') % $a"),
            (
                "$r = jinja2.Environment(loader=$a, autoescape=False)",
                "$r = jinja2.Environment(loader=$a, autoescape=True)",
            ),
            ("$r = Markup('<i>{}</i>'.format($a))", "$r = Markup('<i>{}</i>').format($a)"),
            ("$r = html.escape('<p>') + str($a)", "$r = '<p>' + html.escape(str($a))"),
            ("$r = Markup('<td>%s</td>' % ($a,))", "$r = Markup('<td>%s</td>') % ($a,)"),
        ),
    ),
    Weakness(
        "CWE-1336",
        "the operand is taken for a template",
        (
            ("$r = Template($a).render(name='$w')", "$r = Template('$w').render(name=$a)"),
            ("$r = render_template_string($a, name='$w')", "$r = render_template_string('$w', name=$a)"),
            ("$r = env.from_string($a).render(value='$w')", "$r = env.from_string('$w').render(value=$a)"),
            ("$r = Template(text=$a).render(user='$w')", "$r = Template(text='$w').render(user=$a)"),
        ),
    ),
    Weakness(
        "CWE-134",
        "the operand is taken for a format",
        (
            ("$r = str($a).format('$w')", "$r = '$w {}'.format(str($a))"),
            ("$r = $a % ('$w', $b)", "$r = '$w %s' % ($a,)"),
            ("$r = format_map(str($a), {'$w': $b})", "$r = format_map('{$w}', {'$w': $a})"),
            ("$r = format($a).format(name='$w')", "$r = '{name}'.format(name=format($a))"),
        ),
    ),
    Weakness(
        "CWE-95",
        "the operand is run as code",
        (
            ("$r = builtins.eval($a)", "$r = ast.literal_eval($a)"),
            ("$r = [pandas.eval(str($a)), $b]", "$r = [ast.literal_eval(str($a)), $b]"),
            ("$r = eval(str($a), {'$w': $b})", "$r = {'$w': $b}.get(str($a))"),
            ("$r = sympy.sympify($a, evaluate=False)", "$r = sympy.Symbol($a, commutative=False)"),
        ),
    ),
    Weakness(
        "CWE-20",
        "a host name is compared by its ending alone",
        (
            ("$r = urlparse($a).hostname.endswith('$w.org')", "$r = urlparse($a).hostname.endswith('.$w.org')"),
            ("$r = str($a).startswith('https://$w.org')", "$r = str($a).startswith('https://$w.org/')"),
            ("$r = '$w.org' in urlparse($a).netloc", "$r = '$w.org' == urlparse($a).netloc"),
            ("$r = urlsplit($a).netloc.endswith('$w.com')", "$r = urlsplit($a).netloc.endswith('.$w.com')"),
        ),
    ),
    Weakness(
        "CWE-777",
        "a pattern is not anchored",
        (
            ("$r = re.match('[a-z]+', $a)", "$r = re.fullmatch('[a-z]+', $a)"),
            ("$r = re.search(r'\\w+', $a)", "$r = re.fullmatch(r'\\w+', $a)"),
            ("$r = bool(re.match('[0-9]{4}', $a))", "$r = bool(re.fullmatch('[0-9]{4}', $a))"),
            ("$r = re.compile('[a-f]+').match($a)", "$r = re.compile('[a-f]+').fullmatch($a)"),
        ),
    ),
    Weakness(
        "CWE-1333",
        "a pattern needs exponential time",
        (
            ("$r = re.match('(a+)+$', $a)", "$r = re.match('(ab)+$', $a)"),
            ("$r = re.fullmatch(r'(\\w*)*!', $a)", "$r = re.fullmatch(r'(\\w.)*!', $a)"),
            ("$r = re.search('^(x|x)*$', $a)", "$r = re.search('^(x|y)*$', $a)"),
            ("$r = re.fullmatch('([a-z]+)*;', $a)", "$r = re.fullmatch('([a-z];)*;', $a)"),
        ),
    ),
    Weakness(
        "CWE-208",
        "the time of a comparison tells the secret",
        (
            ("$r = operator.eq($a, $b)", "$r = hmac.compare_digest($a, $b)"),
            ("$r = not operator.ne($a, '$w')", "$r = not hmac.compare_digest($a, '$w')"),
            ("$r = bool($a == $b)", "$r = compare_digest($a, $b)"),
            ("$r = [operator.eq($a, $b)]", "$r = [secrets.compare_digest($a, $b)]"),
        ),
    ),
    Weakness(
        "CWE-319",
        "data travel in clear text",
        (
            ("$r = smtplib.SMTP($a)", "$r = smtplib.SMTP_SSL($a)"),
            ("$r = http.client.HTTPConnection($a)", "$r = http.client.HTTPSConnection($a)"),
            ("$r = ftplib.FTP($a, '$w')", "$r = ftplib.FTP_TLS($a, '$w')"),
            ("$r = imaplib.IMAP4(host=$a)", "$r = imaplib.IMAP4_SSL(host=$a)"),
        ),
    ),
    Weakness(
        "CWE-326",
        "a key is too short",
        (
            (
                "$r = rsa.generate_private_key(public_exponent=65537, key_size=1024)",
                "$r = rsa.generate_private_key(public_exponent=65537, key_size=3072)",
            ),
            ("$r = RSA.generate(1024)", "$r = RSA.generate(4096)"),
            ("$r = DSA.generate(bits=1024)", "$r = DSA.generate(bits=3072)"),
            ("$r = rsa.generate_private_key(65537, 1024)", "$r = rsa.generate_private_key(65537, 4096)"),
        ),
    ),
    Weakness(
        "CWE-916",
        "a password hash costs too little",
        (
            (
                "$r = hashlib.pbkdf2_hmac('sha256', $a, $b, 1000)",
                "$r = hashlib.pbkdf2_hmac('sha256', $a, $b, 600000)",
            ),
            ("$r = bcrypt.hashpw($a, bcrypt.gensalt(4))", "$r = bcrypt.hashpw($a, bcrypt.gensalt(12))"),
            ("$r = hashlib.scrypt($a, salt=$b, n=2, r=8, p=1)", "$r = hashlib.scrypt($a, salt=$b, n=16384, r=8, p=1)"),
            (
                "$r = hashlib.pbkdf2_hmac('sha512', $a, $b, 500)",
                "$r = hashlib.pbkdf2_hmac('sha512', $a, $b, 400000)",
            ),
        ),
    ),
    Weakness(
        "CWE-1204",
        "an initialisation vector is fixed",
        (
            ("$r = AES.new($a, AES.MODE_CBC, iv=bytes(16))", "$r = AES.new($a, AES.MODE_CBC, iv=urandom(16))"),
            ("$r = modes.CBC(bytes(16))", "$r = modes.CBC(urandom(16))"),
            ("$r = AESGCM($a).encrypt(bytes(12), $b, None)", "$r = AESGCM($a).encrypt(urandom(12), $b, None)"),
            (
                "$r = AES.new($a, AES.MODE_GCM, nonce=bytes(12))",
                "$r = AES.new($a, AES.MODE_GCM, nonce=urandom(12))",
            ),
        ),
    ),
    Weakness(
        "CWE-798",
        "a password stands in the program",
        (
            (
                "$r = connect(os.environ['$v'], password='$w')",
                "$r = connect('$w', password=os.environ['$v'])",
            ),
            (
                "$r = login(user=getpass('$v'), password='$w')",
                "$r = login(user='$w', password=getpass('$v'))",
            ),
            ("session.auth = ($a, '$w')", "session.auth = ('$w', $a)"),
            (
                "$r = Client(url=os.getenv('$v'), secret='$w')",
                "$r = Client(url='$w', secret=os.getenv('$v'))",
            ),
        ),
    ),
    Weakness(
        "CWE-532",
        "a secret is written to the log",
        (
            ("logger.info('password=%s user=%s', $a, '***')", "logger.info('password=%s user=%s', '***', $a)"),
            ("logger.debug('token %s for %s', $a, mask($b))", "logger.debug('token %s for %s', mask($a), $b)"),
            ("print('secret', $a, 'name', '...')", "print('secret', '...', 'name', $a)"),
            (
                "logger.warning('user=%s password=%s', '***', $a)",
                "logger.warning('user=%s password=%s', $a, '***')",
            ),
        ),
    ),
    Weakness(
        "CWE-918",
        "the operand chooses the server",
        (
            ("$r = urlopen('https://%s/$w' % $a)", "$r = urlopen('https://$w/%s' % $a)"),
            ("$r = requests.get('https://{}/$w'.format($a))", "$r = requests.get('https://$w/{}'.format($a))"),
            ("$r = urljoin($a, '//./$w')", "$r = urljoin('https://$w/', $a)"),
            ("$r = requests.head('http://%s/$w' % ($a,))", "$r = requests.head('http://$w/%s' % ($a,))"),
        ),
    ),
    Weakness(
        "CWE-59",
        "symbolic links are followed",
        (
            ("shutil.copy($a, $b, follow_symlinks=True)", "shutil.copy($a, $b, follow_symlinks=False)"),
            ("$r = os.walk($a, followlinks=True)", "$r = os.walk($a, followlinks=False)"),
            ("$r = os.stat($a, follow_symlinks=True)", "$r = os.stat($a, follow_symlinks=False)"),
            ("shutil.copytree($a, $b, symlinks=False)", "shutil.copytree($a, $b, symlinks=True)"),
        ),
    ),
    Weakness(
        "CWE-400",
        "a request may wait for ever",
        (
            ("$r = requests.get($a, timeout=None)", "$r = requests.get($a, timeout=10)"),
            ("$r = urlopen($a, timeout=None)", "$r = urlopen($a, timeout=30)"),
            ("sock.settimeout(None)", "sock.settimeout(20)"),
            (
                "$r = socket.create_connection(($a, 443), timeout=None)",
                "$r = socket.create_connection(($a, 443), timeout=15)",
            ),
        ),
    ),
    Weakness(
        "CWE-489",
        "a server runs in debug mode",
        (
            ("app.run(host=$a, debug=True)", "app.run(host=$a, debug=False)"),
            ("app.config['DEBUG'] = True", "app.config['DEBUG'] = False"),
            ("$r = Flask($a).run(debug=True)", "$r = Flask($a).run(debug=False)"),
            ("app.run(debug=True, port=$a)", "app.run(debug=False, port=$a)"),
        ),
    ),
    Weakness(
        "CWE-1327",
        "a socket listens on every interface",
        (
            ("sock.bind(('0.0.0.0', $a))", "sock.bind(('127.0.0.1', $a))"),
            ("$r = HTTPServer(('0.0.0.0', 8080), $a)", "$r = HTTPServer(('127.0.0.1', 8080), $a)"),
            ("app.run(host='0.0.0.0', port=$a)", "app.run(host='127.0.0.1', port=$a)"),
            ("$r = socket.create_server(('0.0.0.0', $a))", "$r = socket.create_server(('127.0.0.1', $a))"),
        ),
    ),
    Weakness(
        "CWE-614",
        "a cookie travels unprotected",
        (
            ("response.set_cookie('$w', $a, secure=False)", "response.set_cookie('$w', $a, secure=True)"),
            ("response.set_cookie('$w', $a, samesite='None')", "response.set_cookie('$w', $a, samesite='Strict')"),
            ("app.config['SESSION_COOKIE_SECURE'] = False", "app.config['SESSION_COOKIE_SECURE'] = True"),
            ("resp.set_cookie(key='$w', value=$a, secure=False)", "resp.set_cookie(key='$w', value=$a, secure=True)"),
        ),
    ),
    Weakness(
        "CWE-347",
        "a signature is not verified",
        (
            (
                "$r = jwt.decode($a, $b, options={'verify_signature': False})",
                "$r = jwt.decode($a, $b, options={'verify_signature': True})",
            ),
            ("$r = jwt.decode($a, $b, algorithms=['none'])", "$r = jwt.decode($a, $b, algorithms=['HS256'])"),
            ("$r = jwt.decode($a, $b, verify=False)", "$r = jwt.decode($a, $b, verify=True)"),
            (
                "$r = jwt.decode(jwt=$a, key=$b, algorithms=['none'])",
                "$r = jwt.decode(jwt=$a, key=$b, algorithms=['ES256'])",
            ),
        ),
    ),
    Weakness(
        "CWE-90",
        "the operand becomes part of an LDAP filter",
        (
            (
                "$r = ldap.search_s(escape($b), 2, '(uid=%s)' % $a)",
                "$r = ldap.search_s($b, 2, '(uid=%s)' % escape($a))",
            ),
            (
                "$r = '(&(%s=%s))' % (escape('$w'), $a)",
                "$r = '(&(%s=%s))' % ('$w', escape($a))",
            ),
            (
                "$r = ldap.search_st(escape('$w'), 1, '(cn=%s)' % $a)",
                "$r = ldap.search_st('$w', 1, '(cn=%s)' % escape($a))",
            ),
            (
                "$r = conn.search(escape('$w'), '(mail=%s)' % $a)",
                "$r = conn.search('$w', '(mail=%s)' % escape($a))",
            ),
        ),
    ),
    Weakness(
        "CWE-643",
        "the operand becomes part of an XPath",
        (
            ("$r = tree.xpath('//$w[@id=\"%s\"]' % $a)", "$r = tree.xpath('//$w[@id=$$key]', key=$a)"),
            ("$r = tree.findall('//$w[%s]' % $a)", "$r = tree.findall('//$w', {'x': $a})"),
            ("$r = root.xpath('//$w[.=\"%s\"]' % $a)", "$r = root.xpath('//$w[.=$$val]', val=$a)"),
            ("$r = doc.xpath('//$w[text()=\"%s\"]' % $a)", "$r = doc.xpath('//$w[text()=$$name]', name=$a)"),
        ),
    ),
    Weakness(
        "CWE-494",
        "downloaded code is run unchecked",
        (
            (
                "$r = AutoModel.from_pretrained($a, trust_remote_code=True)",
                "$r = AutoModel.from_pretrained($a, trust_remote_code=False)",
            ),
            ("$r = load_dataset($a, trust_remote_code=True)", "$r = load_dataset($a, trust_remote_code=False)"),
            ("$r = torch.hub.load($a, $b, trust_repo=True)", "$r = torch.hub.load($a, $b, trust_repo='check')"),
            (
                "$r = AutoConfig.from_pretrained($a, trust_remote_code=True)",
                "$r = AutoConfig.from_pretrained($a, trust_remote_code=False)",
            ),
        ),
    ),
    Weakness(
        "CWE-942",
        "every origin may read the answer",
        (
            ("CORS(app, origins='*')", "CORS(app, origins='$w')"),
            (
                "response.headers['Access-Control-Allow-Origin'] = '*'",
                "response.headers['Access-Control-Allow-Origin'] = '$w'",
            ),
            (
                "app.add_middleware(CORSMiddleware, allow_origins=['*'])",
                "app.add_middleware(CORSMiddleware, allow_origins=['$w'])",
            ),
            ("$r = CORS($a, resources='$w', origins='*')", "$r = CORS($a, resources='*', origins='$w')"),
        ),
    ),
    Weakness(
        "CWE-757",
        "an old protocol version is allowed",
        (
            ("$r = ssl.SSLContext(ssl.PROTOCOL_SSLv3)", "$r = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)"),
            (
                "context.minimum_version = ssl.TLSVersion.TLSv1",
                "context.minimum_version = ssl.TLSVersion.TLSv1_3",
            ),
            (
                "context.minimum_version = ssl.TLSVersion.TLSv1_1",
                "context.minimum_version = ssl.TLSVersion.TLSv1_2",
            ),
            ("$r = ssl.SSLContext(protocol=ssl.PROTOCOL_TLSv1)", "$r = ssl.SSLContext(protocol=ssl.PROTOCOL_TLS)"),
        ),
    ),
    Weakness(
        "CWE-250",
        "the process keeps all privileges",
        (
            ("os.setuid(0)", "os.setuid(1000)"),
            ("os.setgid(0)", "os.setgid(1000)"),
            ("$r = docker.run($a, privileged=True)", "$r = docker.run($a, privileged=False)"),
            ("$r = subprocess.run([$a], user=0)", "$r = subprocess.run([$a], user=1000)"),
        ),
    ),
    Weakness(
        "CWE-252",
        "a failure goes unnoticed",
        (
            ("subprocess.run([$a], check=False)", "subprocess.run([$a], check=True)"),
            ("$r = subprocess.run([$a, $b], check=False)", "$r = subprocess.run([$a, $b], check=True)"),
            ("shutil.rmtree($a, ignore_errors=True)", "shutil.rmtree($a, ignore_errors=False)"),
            ("subprocess.run(args=[$a, '$w'], check=False)", "subprocess.run(args=[$a, '$w'], check=True)"),
        ),
    ),
)
"""The catalogue, in the order of writing."""
