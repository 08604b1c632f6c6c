"""Land: a coarse map of land and sea, for the background of the data card's map.

Half a degree a cell, made from the GLOBE elevation data as the package global-land-mask
brings them; a test makes it again. That package itself fills 1 GB of memory, too much
for a picture.
"""

from __future__ import annotations

import base64
import zlib
from functools import lru_cache

import numpy as np
import numpy.typing as npt

NUM_ROWS, NUM_COLUMNS = 360, 720


@lru_cache(maxsize=1)
def land_mask() -> npt.NDArray[np.bool_]:
    """True = at least half land; bool [360, 720], row 0 at 90 degrees north, column 0 at 180 degrees west.

    Source: NOAA GLOBE 1 km elevation model (public domain), through global-land-mask
    1.0.0 (MIT).
    """
    bits = np.frombuffer(zlib.decompress(base64.b85decode("".join(_PACKED))), np.uint8)
    return np.unpackbits(bits).astype(bool).reshape(NUM_ROWS, NUM_COLUMNS)


# Rows of bits, deflated, in base 85.
_PACKED = (
    "c-rlq&1)UW5x~1O&l)W&UJLeMg($BLn{!rS4^hDJXtRf00{IiHkV6h3pg;~<(5go(6Xy`D9CAotiT6*~qfhG*4p9P2ypTf{5~6V&@E#UCUIjG5<L"
    "Pwwe7xzI>YkowJ(30W!IIv`@6}XSRaaH_8zXc%F307#9ABQX9&nyqAdhe{Lh%cgzwr3Nzy&WwNf5|i@(TuYkC!9g#p#8BeWeSY)MWk~5PNF|GCMl"
    "q_c`}@W3)BBhM%2A#jk<;Ebte1g+Ah-0j@>He=K+r`m`2g0GXeh3Cr*r<n@w!>x_3a{**f^IYL+X3!ZPGrZ&RjNiWZE_Z@uAQQ~D^YB?eea5lXh="
    "+ar_z}-OPFp3%H`_1{QHSo=B0}{po{F-#+6rBl&ro5{SMABe3OJ)cy%2>g8gx+kDKd5vH+5zdc4$LJOr&nbV()4_-dP!5Gr1~SszTW56fBMfDKTW"
    "*^dBP6(-6<M+^*5_WrFr(v;hX#*4bp2Vx>v~3(X(c3<%4YMqx61gGG@-7;b-R+s#Zw;VfVF_Q?rKm2mIKCR&%lQqP%?1rVU;TGkw9LAy8qy+J2xN"
    "HX6^RO>$D|dD9p$5E^+Ii+Ab=3UF?=w8HG~l*sEQqZ7vV5l+~_X(=Tu(ZI}8q0n*lij46T%eh&E$wIAX@26kO-|?U1<0kn<0y-56-dhOt7`|?@3@"
    "R2TFJC85@<L2zHo86e^m~+OWNa{OoC^u|(C#)lD>DIRSW)C_<<r0CPa5QC6HPM+_0y}DHX_XcXMQDTX?Ev;Hg3viC&77B=7t#+OqMs(3?YsJelAz"
    "LLXBy29r;OI1r3is6l=tEyl9)KUnx?k=v^)+S(ws^dI9a4GdW2sufY6}Lu2ZuWo+mF+K|G2zLX>Xg9G(x0c+2o5aUJh7f!U8)g<HN;vH<NB(X$2O"
    "el%{6cw`^=!;eHfE0RLu2K9BhsOcWBc#P){zR-s#DD6iIN;N0H=RK5erYP3>&q+)j!(F0q%CqRtZ70yN$>+Hv)2Nbkt9Qje=2`DerO~Mec<Mw$u2"
    ")VW1Obmk(@WbrHjf8!!pe|HiM;LOnX56bwBm6{8XYX+|!sDMa9oU3;AKFWh}MqQo6KwD(PmaQ6WtpSjar_0rII-|J?*t&bW@lhJ_}<nD>smJZ9ZT"
    "pMNgNw_~MN>5J#QUYb%S6wms}A=fjON=H)KqhfXouTSgji}DopgE^WYdJ0@hOp2K+J)4%w7M~=pG288zIn&qCdeC&iQ%{y;Qu?>J5@{8rU*rTPC&"
    "5IBry_7cu9j1Qyv?145Nj1sbi9a`5WB8yA=Q`Qj5w1aWvGDjtv@srTzg;=xRLXzTj`&-dH4^UsLPLaKZ&V>ysWY)AWWgdDobjT11IvM-Esnba9&G"
    "mz-@BWPY&a9sgQaOXuI~Se1k-TWfsJ|OoMsOaGUJ&bU}S?i=6s#&}S9o^QFp2vu)%tEwW0o57pxt>I)hvx-m@!lFeoouE;_gekU^`&*jQ)$KnjtO"
    "T~z#x`}+I#LH<Xk)n@ze8ozR8xAY4{EKF;T=<XQ$+=z^Ys5Z}maNK9ikv!^e@BwfH2?8<yUC-}&TrY(TvS^1dnT%G{@av%t+)iecBkTlR{1a2SYP"
    "aHkT+U|loYy4mP!5&3j_NE%Im7hI7V$>MCh#!*%vxY847x%@-z)3Wd^8CvDc}4<itF?XD3I>6zcg|DMMsKfiFVRsny;Vm+;fjPDUEJTJW_Mpjgop"
    "txDUKVSCjYlvi|_k&)a~G)YBeay_<tb~I{sJE}H-N41qu{=3^GCqZw>;7@KreH2VO<mPMqXFTkWpdW)BngcsI;qlF0@?TU-2Pk2uCQsXSAbA8PYJ"
    "d~&KxOxImOGu+vBx9sq>XK$;BCL|u@<5EgMRWIxMA9P-2+Wo8FeG0UUG7C(QNRBaR`&Y(=z*r^k~bOO!Sz5)=7%GHHvlo%Fy4?O42M>!G1cv=RjU"
    "I^kg*h^9%*4!Q72w$=L1Dt)68A)toOO7vm7v?+-MMY}t*xfJU7?7B!4{e>!#|=RfW=Ad9z~^Zvw58~jP9HCDX+I<cil4&>9cOP1CX2ltI@%BmCjI"
    "O>uQ)Z2}789L2iHtsfh?;fb2?O6&}2XeC9A?M_%+Y-?VDjGR>O5D*!zUs?W%<MENx*0o=yIRiB>j_b0SkWTW<Y-3n4^z)V7Pj;Y7d^)S`I;=1(4K"
    ")TB4g-6hMLoe?sI;`qhOey=;W+Rj?k9>h>s09<3mY~9rT=Z+ukAC^8TEfmX<@Aog@x21LQ@q;D@Gglu!1M8#(U!iA*J;-B%5vd1YcDGqcf2-<ChZ"
    "8=fi51$AKpZ0j^GF6w9_S7|);O(jYo+&;4Jb1QP#A!lmeV9g+Nwkb*^&xPFG5)m%8vWC_S;V4V}Sk+(V(*&lSDjIty*+?vn?>vVUEy!#p@{(*_s#"
    "<Itj{1VkEt_~2GOisHj`}vTXVEhn`vrLmt;12@k60d}UiZ$y=`Cd5g2{`Be`wx2?(T4F<iwKUiA(-_Xg_LV*tcW#=V8N+!RQ^!p#n1*Pj%!Os(ET"
    "T(qY+ntu{b5%w!)qkaNT3<R~|hV>GsI(i>KkDOt*92uX`J^0Co0%E?6{ogoI9N48D+$9?3456(lI<dmdV&!2_-vogKiwMHv2?e96l^=)N8>%fk9B"
    "X-O5*&j+?D|-(U+e*gEM0$`mmRVuT6Wi*0G7EW9w3xf(rguEz9O!j~J*Q4+VR6)E8qav^gp~`~zg>`tjVx_Cp@C^H+TesHvet5AD!u4#%~;2A+1R"
    "#`Qvv+~-5p3iDr8=;8C@p+$Z>eXw`Ikh5tlJz#YPqvko&FTEnV*+Z?VFemMqC+F3BWn<=cH{1Xlx|_9ei1wWX{%O5X{sB?<?CF1fX56ZW3{B8uF$"
    "dwsd~N@F0+3G6*%=Swm^Ol;(X(lykyW@Xga>?cb-UrWtlgBNYgyfpI2#RIE6S<L&Smn`&5nEYYsOkrK-Oji6Pv}og~Tq;KaFE;G6RhP4uk{q@V|F"
    "uf;Y7LPahUy<v|0rrzXY%Bg7hA}zjPy+Ypt7~(K$gvbK$25S>m!)T94YdS(|J)IvamcPWojb?ygs0#j*qyJ8JEXl$0XV?H-c!nhNupWU&z1hFolq"
    "H>Masd#^azoOp`j1Jur&vwVz*Y1xluG+>+?3BkyShNpf7QGzB?#Bh!AeS1#35et=Jv`nDbX+wY=va$YtL1UW3$$k5o1>9${Naf4U;`=mPa5V?_YF"
    "Zn^4YYio%Uh?Cz_VOF#pSzGrhukUwPjjS`g}~o%A$zQcd>&V1`9eRC<R2j?5AV@Nc`Q&ojB4^VC$bE7p+)8#X=GpO8E?6eMS#YkWzQ-rD>Ph?JvE"
    "_DLW@+COf2NQDv=a<QIVIOWEM#q%eBg}mD66$nq(#Vc+*K{L1yRwwrl{EWTo(tyn+SKX$G%Ehy~Cw!!~)hAj?H!F?2%52@kZC*oV$j2(p~IMR_=R"
    "X<^09pnum&<2{(X9aROw3R-s}PiU)L^5BYfJuc=OwHJG{anM%F$3RvQ&Qs*E<5z`9yDT+StVw-NW66=+IVs9GxF?cSf^WG6=#rf31|735Ij->WAa"
    "YY^p`I`>wA6RN6A)H%-pWzIDjSEp@@&8`awA!iEqn@A**Mt~uOBFLd({fS`dyx&A<o~|^S~x11*`1c8?vK5Q0B<crqZ-}V>09`Xv9v|v`Qz?AtYq"
    "qricw>?QwD_lxNw(1LrC+=vliK{}jC`UWw5~koDO<mx=VXx7=jrR<fR}zLpDe!uKzNtUDZ*WH;N`tTUG!Cbt}}Amh;>as>Kd(k4^>Xc6JW-38my!"
    "Q>GO2|v1ryg}p~)J99G?AL_vCz~i)eQ9#bHG@wGKM<d`z2{U=Ko?Hn9w<E*<PSyAbFmP(lj_4gP@13<@7{9yE>GRHq3hIx$s#x}?%x}sHypY?9^7"
    "Tea1T@-CB^TncSU`jDv!gvZZKIIGX9N99bz0hlQl&fx~r0WOW981xobl+v7Wvy;pyIJHZp_BWg~n^RP3t@&Q=GII|V<zU6Hfi1%Sci04Do&wcMZ3"
    "3?rkvMWdbY8?LKWn@kO4uXt!VC%ttc9Y#hdQ{BKlng4IPl0ye=R0;3M>up2B$)QDNydPEW7`o(0FqvCA!W)j+SKBR!(;k&e#yFI`JYc!fW1W>e+8"
    "Rbq06mAG(Jt`N;r;@Kg)p#@eIAa7kR!n9L$Jsu=F^4)$jQuPG@Lx97eJ1n6fU5~6OwQkjeyS!p_YSe%@-xs$SrVyWbzp(OXyO(`8G0Q2}q7z$k;;"
    "8A@UWq_gj${9TW|a69lA&M16I^C4~-vz>lj`&p@7f?5e{QhFzJXeli+LX5~Y`NhoSK1~Y`5gLgKeZX4>2Ri&%^3?wtRLjYEC3N+R0fF3%Nff6V~z"
    "!ANsk#0JXGl-1Mn->n<bC67m%fQ^Yy2U-lJSC^yXabS_CVAv!b%`69I-lb(Bw7_YH)cN0<kXQ&olmt?uZ@P1xhpvY$l`)CGdXl5L&g;YTcczsIfu"
    "xRHFu5vhvZ-onZ7I;&rN1*nj_+R&dx+eCbB<(%s^jd245IVPJt`Q?KOfUIRVJoe8{wy9J!H0fSk^UOblrd9!iGnHa3x?mm>S7dn>7LTe-zL1}+f9"
    "@K*I@9^w}H8Mvqs!*Ybx`Jtyys}%z?OW%-fs#7T5i4$3XpLQvxzPM^6Vd}JY%LBNvsXx*kQV4w2g^V53?6&0;?^(ZS^6Ql!t@boHvY}*Lk(YYN!|"
    "%~qkw-l>Y&J95?;#Jr^(QN%iuYSPdH7vc=||<eQ#*Nvwp=-NeqtrR#EoG|G%vD0H?kL63!r#*^4nH&HVd*WZcovLlLJMz?ry%q^I3Yq#n&RN<X3q"
    "%JK3{M(N|~F#&WMY7vFK5bp&%GTf^_wmmu2@%}|Fl%6Pq*y_g7Rj~eN`$o69Z!AoePuY^s$bYymcHw15!qq&j$ZDV6@<QZko=LBxvwd;b%8*?L*%"
    "<Zhs4CJ}#d46R7pK~KWoR>Y<8ygE3Z_w%7rVw3@%W*j_$L07x9arYIVC~Ec{MyI!BF`-^K=Udm=9ShV)Bk8vm*ve|J65%&x}&d)$kh6=bxELhtPb"
    "<y?v+lpjkjwrHj4bZ+DFOwfHQqN)(W?5ZnnSg=Hvp`ZMrB=26!C)?pRM^XS%ZW>aa!(-2U64Nt6Vim@Wp_TU3GR=ERn<d2TF^gTGefSB!W1wW=8`"
    ">2GPbI%3AV6WhiOreD^I+7`;bvfsJ~03WJqkL!2pT-)y6cksw~Uq%~wkLy(|G*`E+cbM*abvXlhKiPhV>8?>A^j+0pV76~l&T`)&mNWh-j^jWxpF"
    "!YGky;#mRks^@oas}H`AaFoo1l$N!zp4mgdDY2kmyXn;>LyR-%E5KEpx6^L=wm<=@7EzUKO2>9;6G6EVpLc-@(skGz|DGHvBA|nM@Mz2Nsj`27-A"
    "$vQB(9n_su4o*MmA-jHB0xc)!bAgLZC#W$b{ALxFXCK(`BniNTa?Dl&zD}%)F{~A(UP2_g7YE#@N2C{FtAFO#GJ2@=uaj*kw0SVhK${TJPQ74%KU"
    "5O4Sr+wr^Z6h!~yVV(^Z#aV{bfHb|8wWFzE4%ag#gBNV@av}Q!mjz8Mm!&dT#n0eIUL4+0VgKN$N"
)
