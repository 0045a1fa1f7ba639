//! The forms of credentials, one a line: what begins it, and the whole.
//!
//! The first table is made from the rules of gitleaks 8.30.1 (`config/gitleaks.toml`), those whose
//! secret has a beginning of its own. Left out are rules that go by a service's name nearby, by how
//! random a text looks, or by file; and what only bounds a match there (quotes, ends of lines), for
//! here a credential may stand anywhere. The second table is ours, after the providers' public
//! documentation, and the forms that no provider owns.
//!
//! Of gitleaks: MIT License, Copyright (c) 2019 Zachary Rice. Permission is hereby granted, free of
//! charge, to any person obtaining a copy of this software and associated documentation files (the
//! "Software"), to deal in the Software without restriction, including without limitation the rights
//! to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software,
//! and to permit persons to whom the Software is furnished to do so, subject to the following
//! conditions: The above copyright notice and this permission notice shall be included in all copies
//! or substantial portions of the Software. THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY
//! KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS
//! FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE
//! LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
//! OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN
//! THE SOFTWARE.

use std::ops::Range;
use std::sync::{LazyLock, OnceLock};

use aho_corasick::AhoCorasick;
use regex::bytes::{Regex, RegexBuilder};

/// The form that a provider gives its credentials.
#[derive(Debug)]
pub(super) struct Form {
    /// Its name, as in the table.
    pub(super) name: &'static str,
    /// What every one of them holds, in lower case; one of these.
    keywords: &'static [&'static str],
    /// All of it, and in a group what of it is the secret, where not all is.
    pub(super) pattern: &'static str,
    /// Built when a keyword is met for the first time; `None` if it cannot be.
    regex: OnceLock<Option<Regex>>,
}

impl Form {
    const fn new(
        name: &'static str,
        keywords: &'static [&'static str],
        pattern: &'static str,
    ) -> Self {
        Self {
            name,
            keywords,
            pattern,
            regex: OnceLock::new(),
        }
    }

    fn regex(&self) -> Option<&Regex> {
        let build = || RegexBuilder::new(self.pattern).unicode(false).build().ok();
        self.regex.get_or_init(build).as_ref()
    }
}

/// All keywords in one automaton, and whose each is.
struct Keywords {
    automaton: AhoCorasick,
    owners: Vec<usize>,
}

static KEYWORDS: LazyLock<Option<Keywords>> = LazyLock::new(|| {
    let all = all().enumerate();
    let words: Vec<(&str, usize)> = all
        .flat_map(|(n, form)| form.keywords.iter().map(move |word| (*word, n)))
        .collect();
    let automaton = AhoCorasick::builder()
        .ascii_case_insensitive(true)
        .build(words.iter().map(|(word, _)| word))
        .ok()?;
    let owners = words.into_iter().map(|(_, owner)| owner).collect();
    Some(Keywords { automaton, owners })
});

/// Every form.
pub(super) fn all() -> impl Iterator<Item = &'static Form> {
    GITLEAKS.iter().chain(&OURS)
}

/// Something in a form.
#[derive(Debug)]
pub(super) struct Found {
    /// In which.
    #[cfg_attr(not(test), expect(dead_code, reason = "a test asks for it"))]
    pub(super) form: &'static Form,
    /// Where all of it is.
    pub(super) whole: Range<usize>,
    /// Where what is secret of it is.
    pub(super) secret: Range<usize>,
}

impl Found {
    fn all_of(form: &'static Form, whole: Range<usize>) -> Self {
        Self {
            form,
            secret: whole.clone(),
            whole,
        }
    }
}

/// What a text holds in one of the forms. Where the expressions could not be built everything is:
/// unreadable is refused.
pub(super) fn found(text: &str) -> Vec<Found> {
    let mut found = Vec::new();
    let Some(keywords) = KEYWORDS.as_ref() else {
        found.extend(all().next().map(|form| Found::all_of(form, 0..text.len())));
        return found;
    };
    let mut met = [false; GITLEAKS.len() + OURS.len()];
    for keyword in keywords.automaton.find_overlapping_iter(text) {
        let owner = keywords.owners.get(keyword.pattern().as_usize());
        if let Some(met) = owner.and_then(|owner| met.get_mut(*owner)) {
            *met = true;
        }
    }
    for (form, _) in all().zip(met).filter(|(_, met)| *met) {
        match form.regex() {
            Some(regex) if regex.captures_len() == 1 => {
                let places = regex.find_iter(text.as_bytes());
                found.extend(places.map(|place| Found::all_of(form, place.range())));
            }
            Some(regex) => {
                for groups in regex.captures_iter(text.as_bytes()) {
                    let mut groups = groups.iter().flatten().map(|group| group.range());
                    let whole = groups.next().unwrap_or_default();
                    let secret = groups.next().unwrap_or_else(|| whole.clone());
                    found.push(Found {
                        form,
                        whole,
                        secret,
                    });
                }
            }
            None => found.push(Found::all_of(form, 0..text.len())),
        }
    }
    found
}

#[rustfmt::skip]
static GITLEAKS: [Form; 96] = [
    Form::new("1password-secret-key", &["a3-"], r"\bA3-[A-Z0-9]{6}-(?:(?:[A-Z0-9]{11})|(?:[A-Z0-9]{6}-[A-Z0-9]{5}))-[A-Z0-9]{5}-[A-Z0-9]{5}-[A-Z0-9]{5}"),
    Form::new("1password-service-account-token", &["ops_"], r"ops_eyJ[a-zA-Z0-9+/]{250,}={0,3}"),
    Form::new("adobe-client-secret", &["p8e-"], r"\bp8e-(?i)[a-z0-9]{32}"),
    Form::new("age-secret-key", &["age-secret-key-1"], r"AGE-SECRET-KEY-1[QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L]{58}"),
    Form::new("airtable-personnal-access-token", &["pat"], r"\bpat[A-Za-z0-9]{14}\.[a-f0-9]{64}"),
    Form::new("alibaba-access-key-id", &["ltai"], r"\bLTAI(?i)[a-z0-9]{20}"),
    Form::new("artifactory-api-key", &["akcp"], r"\bAKCp[A-Za-z0-9]{69}"),
    Form::new("artifactory-reference-token", &["cmvmd"], r"\bcmVmd[A-Za-z0-9]{59}"),
    Form::new("authress-service-client-access-key", &[".acc_", ".acc-"], r"\b(?:sc|ext|scauth|authress)_(?i)[a-z0-9]{5,30}\.[a-z0-9]{4,6}\.(?-i:acc)[_-][a-z0-9-]{10,32}\.[a-z0-9+/_=-]{30,}"),
    Form::new("aws-amazon-bedrock-api-key-long-lived", &["absk"], r"\bABSK[A-Za-z0-9+/]{109,}={0,2}"),
    Form::new("aws-amazon-bedrock-api-key-short-lived", &["bedrock-api-key-"], r"bedrock-api-key-YmVkcm9jay5hbWF6b25hd3MuY29t"),
    Form::new("clickhouse-cloud-api-secret-key", &["4b1d"], r"\b4b1d[A-Za-z0-9]{38}"),
    Form::new("clojars-api-token", &["clojars_"], r"(?i)CLOJARS_[a-z0-9]{60}"),
    Form::new("cloudflare-origin-ca-key", &["v1.0-"], r"\bv1\.0-[a-f0-9]{24}-[a-f0-9]{146}"),
    Form::new("databricks-api-token", &["dapi"], r"\bdapi[a-f0-9]{32}(?:-[0-9])?"),
    Form::new("defined-networking-api-token", &["dnkey-"], r"(?i)\bdnkey-[a-z0-9=_\-]{26}-[a-z0-9=_\-]{52}"),
    Form::new("digitalocean-access-token", &["doo_v1_"], r"\bdoo_v1_[a-f0-9]{64}"),
    Form::new("digitalocean-pat", &["dop_v1_"], r"\bdop_v1_[a-f0-9]{64}"),
    Form::new("digitalocean-refresh-token", &["dor_v1_"], r"(?i)\bdor_v1_[a-f0-9]{64}"),
    Form::new("doppler-api-token", &["dp.pt."], r"dp\.pt\.(?i)[a-z0-9]{43}"),
    Form::new("dropbox-short-lived-api-token", &["sl."], r"(?i)\bsl\.[a-z0-9\-=_]{135}"),
    Form::new("duffel-api-token", &["duffel_"], r"duffel_(?:test|live)_(?i)[a-z0-9_\-=]{43}"),
    Form::new("dynatrace-api-token", &["dt0c01."], r"dt0c01\.(?i)[a-z0-9]{24}\.[a-z0-9]{64}"),
    Form::new("easypost-api-token", &["ezak"], r"\bEZAK(?i)[a-z0-9]{54}"),
    Form::new("easypost-test-api-token", &["eztk"], r"\bEZTK(?i)[a-z0-9]{54}"),
    Form::new("facebook-page-access-token", &["eaam", "eaac"], r"\bEAA[MC](?i)[a-z0-9]{100,}"),
    Form::new("flutterwave-encryption-key", &["flwseck_test"], r"FLWSECK_TEST-(?i)[a-h0-9]{12}"),
    Form::new("flutterwave-secret-key", &["flwseck_test"], r"FLWSECK_TEST-(?i)[a-h0-9]{32}-X"),
    Form::new("flyio-access-token", &["fo1_", "fm1", "fm2_"], r"\b(?:fo1_[A-Za-z0-9_-]{43}|fm1[ar]_[a-zA-Z0-9+\/]{100,}={0,3}|fm2_[a-zA-Z0-9+\/]{100,}={0,3})"),
    Form::new("frameio-api-token", &["fio-u-"], r"fio-u-(?i)[a-z0-9\-_=]{64}"),
    Form::new("github-app-token", &["ghu_", "ghs_"], r"(?:ghu|ghs)_[0-9a-zA-Z]{36}"),
    Form::new("github-oauth", &["gho_"], r"gho_[0-9a-zA-Z]{36}"),
    Form::new("github-pat", &["ghp_"], r"ghp_[0-9a-zA-Z]{36}"),
    Form::new("github-refresh-token", &["ghr_"], r"ghr_[0-9a-zA-Z]{36}"),
    Form::new("gitlab-cicd-job-token", &["glcbt-"], r"glcbt-[0-9a-zA-Z]{1,5}_[0-9a-zA-Z_-]{20}"),
    Form::new("gitlab-deploy-token", &["gldt-"], r"gldt-[0-9a-zA-Z_\-]{20}"),
    Form::new("gitlab-feature-flag-client-token", &["glffct-"], r"glffct-[0-9a-zA-Z_\-]{20}"),
    Form::new("gitlab-feed-token", &["glft-"], r"glft-[0-9a-zA-Z_\-]{20}"),
    Form::new("gitlab-incoming-mail-token", &["glimt-"], r"glimt-[0-9a-zA-Z_\-]{25}"),
    Form::new("gitlab-kubernetes-agent-token", &["glagent-"], r"glagent-[0-9a-zA-Z_\-]{50}"),
    Form::new("gitlab-oauth-app-secret", &["gloas-"], r"gloas-[0-9a-zA-Z_\-]{64}"),
    Form::new("gitlab-pat", &["glpat-"], r"glpat-[A-Za-z0-9_-]{20}"),
    Form::new("gitlab-ptt", &["glptt-"], r"glptt-[0-9a-f]{40}"),
    Form::new("gitlab-rrt", &["gr1348941"], r"GR1348941[A-Za-z0-9_-]{20}"),
    Form::new("gitlab-runner-authentication-token", &["glrt-"], r"glrt-[0-9a-zA-Z_\-]{20}"),
    Form::new("gitlab-scim-token", &["glsoat-"], r"glsoat-[0-9a-zA-Z_\-]{20}"),
    Form::new("gitlab-session-cookie", &["_gitlab_session="], r"_gitlab_session=[0-9a-z]{32}"),
    Form::new("grafana-cloud-api-token", &["glc_"], r"(?i)\bglc_[A-Za-z0-9+/]{32,}={0,3}"),
    Form::new("grafana-service-account-token", &["glsa_"], r"(?i)\bglsa_[A-Za-z0-9]{32}_[A-Fa-f0-9]{8}"),
    Form::new("harness-api-key", &["pat.", "sat."], r"(?:pat|sat)\.[a-zA-Z0-9_-]{22}\.[a-zA-Z0-9]{24}\.[a-zA-Z0-9]{20}"),
    Form::new("hashicorp-tf-api-token", &["atlasv1"], r"(?i)[a-z0-9]{14}\.(?-i:atlasv1)\.[a-z0-9\-_=]{60,70}"),
    Form::new("heroku-api-key-v2", &["hrku-aa"], r"\b(?:HRKU-AA[0-9a-zA-Z_-]{58})"),
    Form::new("huggingface-access-token", &["hf_"], r"\bhf_(?i:[a-z]{34})"),
    Form::new("huggingface-organization-api-token", &["api_org_"], r"\bapi_org_(?i:[a-z]{34})"),
    Form::new("infracost-api-token", &["ico-"], r"\bico-[a-zA-Z0-9]{32}"),
    Form::new("intra42-client-secret", &["s-s4t2ud-", "s-s4t2af-"], r"\bs-s4t2(?:ud|af)-(?i)[abcdef0123456789]{64}"),
    Form::new("linear-api-key", &["lin_api_"], r"lin_api_(?i)[a-z0-9]{40}"),
    Form::new("mailgun-private-api-token", &["key-"], r"(?i)\bkey-[a-f0-9]{32}"),
    Form::new("mapbox-api-token", &["pk."], r"(?i)\bpk\.[a-z0-9]{60}\.[a-z0-9]{22}"),
    Form::new("maxmind-license-key", &["_mmk"], r"\b[A-Za-z0-9]{6}_[A-Za-z0-9]{29}_mmk"),
    Form::new("new-relic-browser-api-token", &["nrjs-"], r"(?i)\bNRJS-[a-f0-9]{19}"),
    Form::new("new-relic-insert-key", &["nrii-"], r"(?i)\bNRII-[a-z0-9-]{32}"),
    Form::new("new-relic-user-api-key", &["nrak-"], r"(?i)\bNRAK-[a-z0-9]{27}"),
    Form::new("notion-api-token", &["ntn_"], r"\bntn_[0-9]{11}[A-Za-z0-9]{32}[A-Za-z0-9]{3}"),
    Form::new("npm-access-token", &["npm_"], r"(?i)\bnpm_[a-z0-9]{36}"),
    Form::new("octopus-deploy-api-key", &["api-"], r"\bAPI-[A-Z0-9]{26}"),
    Form::new("openshift-user-token", &["sha256~"], r"\bsha256~[A-Za-z0-9_-]{43}"),
    Form::new("perplexity-api-key", &["pplx-"], r"\bpplx-[a-zA-Z0-9]{48}"),
    Form::new("plaid-api-token", &["access-"], r"(?i)\baccess-(?:sandbox|development|production)-[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"),
    Form::new("planetscale-api-token", &["pscale_tkn_"], r"\bpscale_tkn_(?i)[A-Za-z0-9_=\.-]{32,64}"),
    Form::new("planetscale-oauth-token", &["pscale_oauth_"], r"\bpscale_oauth_[A-Za-z0-9_=\.-]{32,64}"),
    Form::new("planetscale-password", &["pscale_pw_"], r"(?i)\bpscale_pw_(?i)[A-Za-z0-9_=\.-]{32,64}"),
    Form::new("postman-api-token", &["pmak-"], r"\bPMAK-(?i)[a-f0-9]{24}\-[a-f0-9]{34}"),
    Form::new("prefect-api-token", &["pnu_"], r"\bpnu_[a-zA-Z0-9]{36}"),
    Form::new("pulumi-api-token", &["pul-"], r"\bpul-[a-f0-9]{40}"),
    Form::new("readme-api-token", &["rdme_"], r"\brdme_[a-z0-9]{70}"),
    Form::new("rubygems-api-token", &["rubygems_"], r"\brubygems_[a-f0-9]{48}"),
    Form::new("scalingo-api-token", &["tk-us-"], r"\btk-us-[A-Za-z0-9_-]{48}"),
    Form::new("sendgrid-api-token", &["sg."], r"\bSG\.(?i)[a-z0-9=_\-\.]{66}"),
    Form::new("sendinblue-api-token", &["xkeysib-"], r"\bxkeysib-[a-f0-9]{64}\-(?i)[a-z0-9]{16}"),
    Form::new("sentry-org-token", &["sntrys_eyjpyxqio"], r"\bsntrys_eyJpYXQiO[a-zA-Z0-9+/]{10,}(?:LCJyZWdpb25fdXJs|InJlZ2lvbl91cmwi|cmVnaW9uX3VybCI6)[a-zA-Z0-9+/]{10,}={0,2}_[a-zA-Z0-9+/]{43}"),
    Form::new("sentry-user-token", &["sntryu_"], r"\bsntryu_[a-f0-9]{64}"),
    Form::new("settlemint-application-access-token", &["sm_aat"], r"\bsm_aat_[a-zA-Z0-9]{16}"),
    Form::new("settlemint-personal-access-token", &["sm_pat"], r"\bsm_pat_[a-zA-Z0-9]{16}"),
    Form::new("settlemint-service-access-token", &["sm_sat"], r"\bsm_sat_[a-zA-Z0-9]{16}"),
    Form::new("shippo-api-token", &["shippo_"], r"\bshippo_(?:live|test)_[a-fA-F0-9]{40}"),
    Form::new("shopify-access-token", &["shpat_"], r"shpat_[a-fA-F0-9]{32}"),
    Form::new("shopify-custom-access-token", &["shpca_"], r"shpca_[a-fA-F0-9]{32}"),
    Form::new("shopify-private-app-access-token", &["shppa_"], r"shppa_[a-fA-F0-9]{32}"),
    Form::new("shopify-shared-secret", &["shpss_"], r"shpss_[a-fA-F0-9]{32}"),
    Form::new("slack-webhook-url", &["hooks.slack.com"], r"(?:https?://)?hooks\.slack\.com/(?:services|workflows|triggers)/[A-Za-z0-9+/]{43,56}"),
    Form::new("stripe-access-token", &["sk_test", "sk_live", "sk_prod", "rk_test", "rk_live", "rk_prod"], r"\b(?:sk|rk)_(?:test|live|prod)_[a-zA-Z0-9]{10,99}"),
    Form::new("typeform-api-token", &["tfp_"], r"(?i)\btfp_[a-z0-9\-_\.=]{59}"),
    Form::new("vault-batch-token", &["hvb."], r"\bhvb\.[A-Za-z0-9_-]{138,}"),
    Form::new("yandex-access-token", &["t1."], r"(?i)\bt1\.[A-Z0-9a-z_-]+[=]{0,2}\.[A-Z0-9a-z_-]{86}[=]{0,2}"),
    Form::new("yandex-api-key", &["aqvn"], r"(?i)\bAQVN[A-Za-z0-9_\-]{35,38}"),
];

#[rustfmt::skip]
static OURS: [Form; 28] = [
    Form::new("anthropic-openai-openrouter", &["sk-"], r"\bsk-(?:ant-|proj-|or-)?[A-Za-z0-9_-]{20,}"),
    Form::new("aws-access-key-id", &["a3t", "akia", "asia", "abia", "acca"], r"\b(?:A3T[A-Z0-9]|AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}"),
    Form::new("aws-secret-access-key", &["secret_access_key", "secretaccesskey"], r"(?i)secret_?access_?key[\\\x22'\x20:=]{1,8}([A-Za-z0-9/+=]{40})"),
    Form::new("azure-client-secret", &["q~"], r"[A-Za-z0-9_~.]{3}[0-9]Q~[A-Za-z0-9_~.-]{31,34}"),
    Form::new("azure-storage-key", &["accountkey="], r"AccountKey=([A-Za-z0-9+/]{86}==)"),
    Form::new("atlassian-api-token", &["atatt3"], r"\bATATT3[A-Za-z0-9_=-]{180,}"),
    Form::new("discord-webhook", &["/api/webhooks/"], r"discord(?:app)?\.com/api/webhooks/[0-9]+/[A-Za-z0-9_-]{60,}"),
    Form::new("github-fine-grained-pat", &["github_pat_"], r"github_pat_[A-Za-z0-9_]{22,}"),
    Form::new("google-api-key", &["aiza"], r"\bAIza[A-Za-z0-9_-]{35}"),
    Form::new("google-access-token", &["ya29."], r"\bya29\.[A-Za-z0-9_-]{20,}"),
    Form::new("groq-api-key", &["gsk_"], r"\bgsk_[A-Za-z0-9]{52}"),
    Form::new("json-web-token", &["eyj"], r"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}"),
    Form::new("langsmith-api-key", &["lsv2_"], r"\blsv2_(?:pt|sk)_[a-f0-9]{32}_[a-f0-9]{10}"),
    Form::new("microsoft-teams-webhook", &["webhook.office.com"], r"[a-z0-9]+\.webhook\.office\.com/webhookb2/[A-Za-z0-9@-]{30,}/IncomingWebhook/[a-z0-9]{32}"),
    Form::new("pypi-upload-token", &["pypi-"], r"\bpypi-[A-Za-z0-9_-]{50,}"),
    Form::new("replicate-api-token", &["r8_"], r"\br8_[A-Za-z0-9]{37}"),
    Form::new("slack-app-token", &["xapp-"], r"\bxapp-[0-9]-[A-Za-z0-9-]{10,}"),
    Form::new("slack-token", &["xoxa-", "xoxb-", "xoxe-", "xoxe.", "xoxo-", "xoxp-", "xoxr-", "xoxs-"], r"\bxox(?:[abeoprs]-|e\.)[A-Za-z0-9-]{10,}"),
    Form::new("sourcegraph-access-token", &["sgp_"], r"\bsgp_(?:(?:[a-fA-F0-9]{16}|local)_)?[a-fA-F0-9]{40}"),
    Form::new("square-access-token", &["sq0atp-", "eaaa"], r"\b(?:sq0atp-[A-Za-z0-9_-]{22,}|EAAA[A-Za-z0-9_-]{60})"),
    Form::new("supabase-secret-key", &["sb_secret_"], r"\bsb_secret_[A-Za-z0-9_-]{20,}"),
    Form::new("telegram-bot-token", &[":aa"], r"\b[0-9]{8,10}:AA[A-Za-z0-9_-]{33}"),
    Form::new("twilio-api-key", &["sk"], r"\bSK[0-9a-f]{32}"),
    Form::new("vault-service-token", &["hvs."], r"\bhvs\.[A-Za-z0-9_-]{24,}"),
    Form::new("xai-api-key", &["xai-"], r"\bxai-[A-Za-z0-9]{80}"),
    Form::new("private-key", &["private key"], r"(?s)-----BEGIN[ A-Z0-9_-]{0,100}PRIVATE KEY(?: BLOCK)?-----(?:(.*?)-----END[ A-Z0-9_-]{0,100}-----|(.*))"),
    Form::new("authorization-header", &["bearer", "basic"], r"(?i)\b(?:bearer|basic)\x20{1,4}([A-Za-z0-9._~+/-]{20,}=*)"),
    Form::new("url-password", &["://"], r"\b[a-z][a-z0-9+.-]*://[^\s/:@]+:([^\s/@]{3,})@"),
];
